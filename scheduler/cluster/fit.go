package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// gang is where the workers of a job are to be.
type gang struct {
	nodes   []NodeID // in order of first appearance by rank
	gpus    []int    // those of the workers by rank, each by its index in its node
	gpuType string
}

// checkPlacement re-checks a plan for one job against the state as it is now.
// The gang is valid until the next call.
func (s *State) checkPlacement(spec *JobSpec, workers []Placement) (*gang, error) {
	var few [16]int32 // no allocation for most gangs
	to := &s.gang
	nodes, all := to.nodes[:0], to.gpus[:0]
	gpus := few[:0]           // on each of the nodes
	taken := gpuSet{}         // of the last of them
	var known map[NodeID]bool // of many of them
	gpuType, allowed := "", false
	share := spec.Share()
	for i := range workers {
		p := &workers[i]
		n := s.Node(p.Node)
		switch {
		case p.Rank != Rank(i):
			return nil, fmt.Errorf("worker %d of the plan has rank %d", i, p.Rank)
		case n == nil || n.State != NodeReady:
			return nil, fmt.Errorf("node %s is not ready", p.Node)
		case spec.Launch == LaunchPerGPU && len(p.GPUs) != 1:
			return nil, fmt.Errorf("rank %d has %d GPUs: per-gpu workers have one", i, len(p.GPUs))
		}
		last := len(nodes) - 1
		switch again := last >= 0 && nodes[last] == p.Node; {
		case again && spec.Launch == LaunchPerNode:
			return nil, fmt.Errorf("node %s has two launchers of the job", n.Name)
		case again:
		case len(known) > 0 && known[p.Node] || len(known) == 0 && slices.Contains(nodes, p.Node):
			return nil, fmt.Errorf("ranks on node %s are not consecutive", n.Name)
		default:
			nodes, gpus, taken = append(nodes, p.Node), append(gpus, 0), gpuSet{}
			if last++; len(nodes) > len(few) {
				if known == nil {
					known = map[NodeID]bool{}
				}
				for _, id := range nodes[len(known):] {
					known[id] = true
				}
			}
		}
		for _, uuid := range p.GPUs {
			g := n.FindGPU(uuid)
			if g < 0 || n.UsableMilli(g) < share || !taken.add(g) {
				return nil, fmt.Errorf("GPU %s on node %s is not free", uuid, n.Name)
			}
			if gpuType == "" {
				gpuType = n.GPUs[g].Type
				allowed = AllowsType(spec, gpuType)
			}
			if n.GPUs[g].Type != gpuType || !allowed {
				return nil, fmt.Errorf("GPU %s on node %s is of type %s", uuid, n.Name, n.GPUs[g].Type)
			}
			gpus[last]++
			all = append(all, g)
		}
	}
	if total := int32(len(all)); total < spec.Least() || total > spec.GPUs { //nolint:gosec // at most MaxNodeGPUs for each node
		return nil, fmt.Errorf("the plan has %d of %d GPUs", total, spec.GPUs)
	}
	if t := &spec.Topology; t.Required {
		if err := s.checkDomain(t.Level, nodes, workers); err != nil {
			return nil, err
		}
	}
	for i, id := range nodes {
		n, k := s.Node(id), gpus[i]
		if lacks := n.Admits(spec); lacks != "" {
			return nil, fmt.Errorf("node %s is not for the job, which needs %s", n.Name, lacks)
		}
		if spec.GPUsPerNode > 0 && k != spec.GPUsPerNode {
			return nil, fmt.Errorf("node %s gets %d GPUs, not gpus_per_node %d", n.Name, k, spec.GPUsPerNode)
		}
		if FitByResources(n, spec) < k {
			return nil, fmt.Errorf("node %s lacks CPUs or memory for %d GPUs", n.Name, k)
		}
	}
	to.nodes, to.gpus, to.gpuType = nodes, all, gpuType
	return to, nil
}

// gpuSet is a set of GPUs of one node, by index.
type gpuSet [MaxNodeGPUs / 64]uint64

// add reports whether the GPU was not in the set.
func (s *gpuSet) add(i int) bool {
	was := s[i>>6]
	s[i>>6] |= 1 << (i & 63)
	return s[i>>6] != was
}

// checkDomain returns an error if a gang is not within one domain of a level.
func (s *State) checkDomain(level string, nodes []NodeID, workers []Placement) error {
	p := s.Policy()
	first := p.Domain(s.Node(nodes[0]), level)
	for _, id := range nodes {
		if d := p.Domain(s.Node(id), level); d == "" || d != first {
			return fmt.Errorf("nodes %s and %s are not in one %s", s.Node(nodes[0]).Name, s.Node(id).Name, level)
		}
	}
	if level == LevelNode || !WithinNode(level) {
		return nil
	}
	n, parts := s.Node(nodes[0]), []int32(nil)
	for _, p := range workers {
		for _, uuid := range p.GPUs {
			part, known := n.GPUs[n.FindGPU(uuid)].Part(level)
			parts = append(parts, part)
			if len(parts) > 1 && (!known || part != parts[0]) { // one GPU is always in one
				return fmt.Errorf("GPUs of node %s are not in one %s", n.Name, LevelText(level))
			}
		}
	}
	return nil
}

// Domain is the name of the domain of a level that a node is in: the values of
// the level's label and of those above it, joined by slashes. It is empty if
// the policy has no such level, or the node lacks the level's own label. At
// level "node" each node is a domain of its own, and so it is at the levels
// within a node.
func (p *Policy) Domain(n *Node, level string) string {
	if WithinNode(level) {
		return string(n.ID)
	}
	path := ""
	for _, l := range p.Levels {
		v := n.Label(l.Label)
		path += v
		if l.Name == level {
			if v == "" {
				return ""
			}
			return path
		}
		path += "/"
	}
	return ""
}

// AllowsType reports whether a job may run on GPUs of this type: on one that it
// names, or if it names none on any but MIG instances.
func AllowsType(spec *JobSpec, gpuType string) bool {
	if len(spec.GPUTypes) > 0 {
		return slices.Contains(spec.GPUTypes, gpuType)
	}
	_, _, instance := InstanceOf(gpuType)
	return !instance
}

// FitByResources returns for how many of the job's GPUs the node has CPUs and
// memory left, at most the node's number of GPUs.
func FitByResources(n *Node, spec *JobSpec) int32 {
	return spec.fitIn(n.CPUMilli-n.CPUUsed, n.MemBytes-n.MemUsed, len(n.GPUs))
}

// fitIn is for how many of so many GPUs the CPUs and memory suffice.
func (s *JobSpec) fitIn(cpu, mem int64, gpus int) int32 {
	fit := int64(gpus)
	if s.CPUPerGPU > 0 {
		fit = min(fit, cpu/s.CPUPerGPU)
	}
	if s.MemPerGPU > 0 {
		fit = min(fit, mem/s.MemPerGPU)
	}
	return int32(max(fit, 0))
}

// Room returns how many of a node's given GPUs the job could have there if the
// node were empty: by CPUs, memory and the job's shape.
func Room(n *Node, spec *JobSpec, gpus int32) int32 {
	k := min(gpus, spec.fitIn(n.CPUMilli, n.MemBytes, len(n.GPUs)))
	switch {
	case spec.GPUsPerNode == 0:
		return k
	case k < spec.GPUsPerNode:
		return 0
	default:
		return spec.GPUsPerNode
	}
}

// Wants says in words which GPUs the job asks for, such as
// "8 GPUs of type h100 or a100, 4 on each node".
func (s *JobSpec) Wants() string {
	out := plural(int(s.GPUs), "GPU")
	switch {
	case s.Shared():
		out = fmt.Sprintf("%g of a GPU", float64(s.GPUMilli)/WholeGPU)
	case s.Elastic():
		out = fmt.Sprintf("%d to %d GPUs", s.MinGPUs, s.GPUs)
	}
	switch {
	case len(s.GPUTypes) > 0:
		out += " of type " + strings.Join(s.GPUTypes, " or ")
	case s.GPUs > 1:
		out += " of one type"
	}
	if s.GPUsPerNode > 0 && s.GPUs > 1 {
		out += fmt.Sprintf(", %d on each node", s.GPUsPerNode)
	}
	if s.Topology.Required {
		out += ", within one " + LevelText(s.Topology.Level)
	}
	return out
}
