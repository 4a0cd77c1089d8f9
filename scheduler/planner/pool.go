package planner

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// pool is what is free while a plan is made: the state's free GPUs, less what
// the plan has given away so far.
type pool struct {
	types  []string // GPU types of ready nodes, sorted
	byType map[string]*typePool
}

// typePool is the part of the pool with GPUs of one type.
type typePool struct {
	nodes []*nodeRoom // with free GPUs, by node id
	live  []liveNode  // with healthy GPUs, ready, by node id
	free  int32       // GPUs that could be given away now
	alive int32       // healthy GPUs on ready nodes, held or not
	total int32       // all GPUs of the type that the state knows
}

// nodeRoom is the room on one node for jobs of one GPU type.
type nodeRoom struct {
	node *cluster.Node
	gpus []string // UUIDs of free GPUs, in the node's order
	res  *reserved
}

// liveNode is a ready node with its healthy GPUs of one type, held or not.
type liveNode struct {
	node *cluster.Node
	gpus int32
}

// reserved is what the plan has reserved on a node, whatever the GPU type.
type reserved struct{ cpu, mem int64 }

func newPool(s *cluster.State) *pool {
	p := &pool{byType: map[string]*typePool{}}
	s.EachNode(func(n *cluster.Node) bool {
		p.addNode(n)
		return true
	})
	slices.Sort(p.types)
	return p
}

func (p *pool) addNode(n *cluster.Node) {
	res := &reserved{}
	for i := range n.GPUs {
		g := &n.GPUs[i]
		t := p.byType[g.Type]
		if t == nil {
			t = &typePool{}
			p.byType[g.Type] = t
			p.types = append(p.types, g.Type)
		}
		t.total++
		if n.State == cluster.NodeReady && g.Healthy {
			t.alive++
			if len(t.live) == 0 || t.live[len(t.live)-1].node != n {
				t.live = append(t.live, liveNode{node: n})
			}
			t.live[len(t.live)-1].gpus++
		}
		if !n.Usable(i) {
			continue
		}
		if len(t.nodes) == 0 || t.nodes[len(t.nodes)-1].node != n {
			t.nodes = append(t.nodes, &nodeRoom{node: n, res: res})
		}
		room := t.nodes[len(t.nodes)-1]
		room.gpus = append(room.gpus, g.UUID)
		t.free++
	}
}

// fit returns how many GPUs of this node the job can have, CPUs and memory considered.
func (r *nodeRoom) fit(spec *cluster.JobSpec) int32 {
	k := int32(len(r.gpus))
	if k == 0 || (spec.CPUPerGPU == 0 && spec.MemPerGPU == 0) {
		return k
	}
	left := *r.node
	left.CPUUsed += r.res.cpu
	left.MemUsed += r.res.mem
	return min(k, cluster.FitByResources(&left, spec))
}

// take gives k GPUs of the node to a job.
func (t *typePool) take(r *nodeRoom, k int32, spec *cluster.JobSpec) []string {
	gpus := r.gpus[:k:k]
	r.gpus = r.gpus[k:]
	r.res.cpu += int64(k) * spec.CPUPerGPU
	r.res.mem += int64(k) * spec.MemPerGPU
	t.free -= k
	return gpus
}

// allowed returns the types that the job may use, preferred first.
func (p *pool) allowed(spec *cluster.JobSpec) []string {
	if len(spec.GPUTypes) == 0 {
		return p.types
	}
	return spec.GPUTypes
}
