package cluster

import "slices"

// NodeState is what the scheduler thinks of a node.
type NodeState uint8

// Node states. The zero value is invalid.
const (
	NodeReady NodeState = 1 // it has a lease
	NodeLost  NodeState = 2 // its lease ran out; its workers are presumed dead and fenced
)

// String returns the state's name as users see it.
func (s NodeState) String() string {
	switch s {
	case NodeReady:
		return "Ready"
	case NodeLost:
		return "Lost"
	default:
		return "Invalid"
	}
}

// Label is one label of a node.
type Label struct {
	Key, Value string
}

// GPU is one GPU of a node. Its identity everywhere is the UUID.
type GPU struct {
	UUID     string
	Type     string // in a word, such as "h100"
	MemBytes int64
	Healthy  bool
	Reason   string  // why not healthy
	Job      JobID   // holder of all of it, or 0
	Epoch    Epoch   // holder's epoch
	Shares   []Share // holders of parts of it, by job; none while Job holds all
	Island   int32   // NVLink island of the node, 0 up; GPUs of one island reach each other fastest
	NUMA     int32   // NUMA node of the machine, or NUMAUnknown
}

// NUMAUnknown is GPU.NUMA where the machine does not tell.
const NUMAUnknown = -1

// Levels of the topology that every cluster has, whatever its policy: the node,
// and what lies within one.
const (
	LevelNode   = "node"
	LevelIsland = "island" // GPUs of one node that NVLink joins
	LevelNUMA   = "numa"   // GPUs of one node that hang off one NUMA node
)

// WithinNode reports whether a level is the node or narrower: a gang within one
// domain of it is on one node.
func WithinNode(level string) bool {
	return level == LevelNode || level == LevelIsland || level == LevelNUMA
}

// Part returns in which part of its node a GPU lies by a level within the node,
// and whether that is known.
func (g *GPU) Part(level string) (part int32, known bool) {
	switch level {
	case LevelIsland:
		return g.Island, true
	case LevelNUMA:
		return g.NUMA, g.NUMA != NUMAUnknown
	default:
		return 0, true
	}
}

// LevelText is a level as people call its domains: "rack", "NVLink island".
func LevelText(level string) string {
	switch level {
	case LevelIsland:
		return "NVLink island"
	case LevelNUMA:
		return "NUMA node"
	default:
		return level
	}
}

// Share is a part of a GPU that a job holds.
type Share struct {
	Job   JobID
	Epoch Epoch
	Milli int32 // thousandths of the GPU
}

// FreeMilli is how much of the GPU no job holds, in thousandths.
func (g *GPU) FreeMilli() int32 {
	if g.Job != 0 {
		return 0
	}
	free := int32(WholeGPU)
	for i := range g.Shares {
		free -= g.Shares[i].Milli
	}
	return free
}

// Held reports whether a job holds the GPU or a share of it.
func (g *GPU) Held() bool { return g.Job != 0 || len(g.Shares) > 0 }

// EachHolder calls f for each job that holds the GPU or a share of it.
func (g *GPU) EachHolder(f func(JobID, Epoch)) {
	if g.Job != 0 {
		f(g.Job, g.Epoch)
	}
	for i := range g.Shares {
		f(g.Shares[i].Job, g.Shares[i].Epoch)
	}
}

// Taint keeps jobs off a node that do not bear it.
type Taint struct {
	Key, Value string
}

// Drain says that a node takes no new jobs, and when it is to be empty.
type Drain struct {
	Reason   string
	By       string
	Since    Time
	Deadline Time // jobs still there are moved away then, through the stop handshake; 0: they may end by themselves
}

// WorkerRef names a worker on a node with the GPUs it holds.
type WorkerRef struct {
	Job   JobID
	Epoch Epoch
	Rank  Rank
	GPUs  []string
}

// Node is one machine with an agent. A Node in a State is replaced, never edited,
// but for who holds its GPUs, in one that no snapshot has yet.
type Node struct {
	ID          NodeID
	Name        string // unique among nodes
	State       NodeState
	Reason      string
	Address     string // agent's gRPC server, host:port
	Host        string // where other nodes' workers reach this node's workers
	BootID      string
	Incarnation uint64 // the agent's process count
	Version     string // agent's release
	GPUs        []GPU
	CPUMilli    int64
	MemBytes    int64
	CPUUsed     int64   // reserved by the jobs whose GPUs are held here, thousandths
	MemUsed     int64   // likewise, bytes
	Labels      []Label // as its agent says, sorted by key
	Placed      []Label // as the policy says, sorted by key; they win. Derived, never encoded
	Taints      []Taint // sorted by key
	Drain       *Drain  // nil: it takes jobs
	// Stale are workers of older epochs that still run here although the state
	// has given them up (the node was lost meanwhile). Their GPUs are not free
	// until the agent has reported their end.
	Stale        []WorkerRef
	RegisteredAt Time
	ChangedAt    Time
	Experience   Experience // since it registered first

	by *owner // who may edit who holds its GPUs
}

// FindGPU returns the index of the GPU with this UUID, or -1.
func (n *Node) FindGPU(uuid string) int {
	for i := range n.GPUs {
		if n.GPUs[i].UUID == uuid {
			return i
		}
	}
	return -1
}

// stale reports whether a worker given up by the state still uses the GPU.
func (n *Node) stale(uuid string) bool {
	for i := range n.Stale {
		for _, g := range n.Stale[i].GPUs {
			if g == uuid {
				return true
			}
		}
	}
	return false
}

// Usable reports whether all of GPU i can be given to a job now.
func (n *Node) Usable(i int) bool { return n.UsableMilli(i) == WholeGPU }

// UsableMilli is how much of GPU i can be given to a job now, in thousandths.
func (n *Node) UsableMilli(i int) int32 {
	g := &n.GPUs[i]
	if n.State != NodeReady || n.Drain != nil || !g.Healthy || (len(n.Stale) > 0 && n.stale(g.UUID)) {
		return 0
	}
	return g.FreeMilli()
}

// Holds reports whether a job holds a GPU of the node.
func (n *Node) Holds() bool {
	for i := range n.GPUs {
		if n.GPUs[i].Held() {
			return true
		}
	}
	return false
}

// Label returns the value of a label, or "".
func (n *Node) Label(key string) string {
	for _, list := range [2][]Label{n.Placed, n.Labels} {
		for i := range list {
			if list[i].Key == key {
				return list[i].Value
			}
		}
	}
	return ""
}

// EachLabel calls f for the labels that the node has.
func (n *Node) EachLabel(f func(Label)) {
	for _, l := range n.Placed {
		f(l)
	}
	for _, l := range n.Labels {
		if !slices.ContainsFunc(n.Placed, func(p Label) bool { return p.Key == l.Key }) {
			f(l)
		}
	}
}

// Admits returns why the node is not for a job whatever is free on it: a label
// that it lacks or a taint that the job does not bear. Empty: it is.
func (n *Node) Admits(spec *JobSpec) string {
	for _, want := range spec.Selector {
		if n.Label(want.Key) != want.Value {
			return "label " + want.Key + "=" + want.Value
		}
	}
	for _, t := range n.Taints {
		if !spec.bears(t) {
			return "a toleration of taint " + t.Key + "=" + t.Value
		}
	}
	return ""
}

func (s *JobSpec) bears(t Taint) bool {
	for _, tol := range s.Tolerations {
		if tol == t.Key || tol == t.Key+"="+t.Value {
			return true
		}
	}
	return false
}
