package cluster

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
	Reason   string // why not healthy
	Job      JobID  // holder, or 0
	Epoch    Epoch  // holder's epoch
}

// WorkerRef names a worker on a node with the GPUs it holds.
type WorkerRef struct {
	Job   JobID
	Epoch Epoch
	Rank  Rank
	GPUs  []string
}

// Node is one machine with an agent. A Node in a State is replaced, never edited.
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
	Labels      []Label // sorted by key
	// Stale are workers of older epochs that still run here although the state
	// has given them up (the node was lost meanwhile). Their GPUs are not free
	// until the agent has reported their end.
	Stale        []WorkerRef
	RegisteredAt Time
	ChangedAt    Time
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

// Usable reports whether GPU i can be given to a job now.
func (n *Node) Usable(i int) bool {
	g := &n.GPUs[i]
	return n.State == NodeReady && g.Healthy && g.Job == 0 && (len(n.Stale) == 0 || !n.stale(g.UUID))
}

// Holds reports whether a job holds a GPU of the node.
func (n *Node) Holds() bool {
	for i := range n.GPUs {
		if n.GPUs[i].Job != 0 {
			return true
		}
	}
	return false
}
