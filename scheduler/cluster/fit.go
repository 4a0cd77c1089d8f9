package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// checkPlacement re-checks a plan for one job against the state as it is now.
// It returns the gang's nodes in order of first appearance by rank.
func (s *State) checkPlacement(spec *JobSpec, workers []Placement) ([]NodeID, error) {
	var nodes []NodeID
	perNode := map[NodeID]int32{}
	seen := map[string]bool{}
	gpuType := ""
	total, share := int32(0), spec.Share()
	for i, p := range workers {
		n := s.Node(p.Node)
		switch {
		case p.Rank != Rank(i):
			return nil, fmt.Errorf("worker %d of the plan has rank %d", i, p.Rank)
		case n == nil || n.State != NodeReady:
			return nil, fmt.Errorf("node %s is not ready", p.Node)
		case spec.Launch == LaunchPerGPU && len(p.GPUs) != 1:
			return nil, fmt.Errorf("rank %d has %d GPUs: per-gpu workers have one", i, len(p.GPUs))
		}
		if perNode[p.Node] == 0 {
			nodes = append(nodes, p.Node)
		} else if spec.Launch == LaunchPerNode {
			return nil, fmt.Errorf("node %s has two launchers of the job", n.Name)
		} else if nodes[len(nodes)-1] != p.Node {
			return nil, fmt.Errorf("ranks on node %s are not consecutive", n.Name)
		}
		for _, uuid := range p.GPUs {
			g := n.FindGPU(uuid)
			if g < 0 || n.UsableMilli(g) < share || seen[uuid] {
				return nil, fmt.Errorf("GPU %s on node %s is not free", uuid, n.Name)
			}
			if gpuType == "" {
				gpuType = n.GPUs[g].Type
			}
			if n.GPUs[g].Type != gpuType || !AllowsType(spec, gpuType) {
				return nil, fmt.Errorf("GPU %s on node %s is of type %s", uuid, n.Name, n.GPUs[g].Type)
			}
			seen[uuid] = true
			perNode[p.Node]++
			total++
		}
	}
	if total < spec.Least() || total > spec.GPUs {
		return nil, fmt.Errorf("the plan has %d of %d GPUs", total, spec.GPUs)
	}
	if t := &spec.Topology; t.Required {
		if err := s.checkDomain(t.Level, nodes); err != nil {
			return nil, err
		}
	}
	for _, id := range nodes {
		n, k := s.Node(id), perNode[id]
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
	return nodes, nil
}

// checkDomain returns an error if nodes are not all in one domain of a level.
func (s *State) checkDomain(level string, nodes []NodeID) error {
	p := s.Policy()
	first := p.Domain(s.Node(nodes[0]), level)
	for _, id := range nodes {
		if d := p.Domain(s.Node(id), level); d == "" || d != first {
			return fmt.Errorf("nodes %s and %s are not in one %s", s.Node(nodes[0]).Name, s.Node(id).Name, level)
		}
	}
	return nil
}

// Domain is the name of the domain of a level that a node is in: the values of
// the level's label and of those above it, joined by slashes. It is empty if
// the policy has no such level, or the node lacks the level's own label. At
// level "node" each node is a domain of its own.
func (p *Policy) Domain(n *Node, level string) string {
	if level == "node" {
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

// AllowsType reports whether a job may run on GPUs of this type.
func AllowsType(spec *JobSpec, gpuType string) bool {
	return len(spec.GPUTypes) == 0 || slices.Contains(spec.GPUTypes, gpuType)
}

// FitByResources returns for how many of the job's GPUs the node has CPUs and
// memory left, at most the node's number of GPUs.
func FitByResources(n *Node, spec *JobSpec) int32 {
	fit := int64(len(n.GPUs))
	if spec.CPUPerGPU > 0 {
		fit = min(fit, (n.CPUMilli-n.CPUUsed)/spec.CPUPerGPU)
	}
	if spec.MemPerGPU > 0 {
		fit = min(fit, (n.MemBytes-n.MemUsed)/spec.MemPerGPU)
	}
	return int32(max(fit, 0))
}

// Room returns how many of a node's given GPUs the job could have there if the
// node were empty: by CPUs, memory and the job's shape.
func Room(n *Node, spec *JobSpec, gpus int32) int32 {
	bare := *n
	bare.CPUUsed, bare.MemUsed = 0, 0
	k := min(gpus, FitByResources(&bare, spec))
	switch {
	case spec.GPUsPerNode == 0:
		return k
	case k < spec.GPUsPerNode:
		return 0
	default:
		return spec.GPUsPerNode
	}
}

// CanEverFit returns an error for people if the gang is larger than what the
// cluster would have with every job gone. Lost nodes count: they may come
// back. A cluster that has no node yet refuses nothing.
func (s *State) CanEverFit(spec *JobSpec) error {
	if s.nodes.Len() == 0 {
		return nil
	}
	var types []string
	room := map[string]int32{}  // GPUs that the job could have, by type
	total := map[string]int32{} // GPUs, by type
	s.EachNode(func(n *Node) bool {
		here := map[string]int32{}
		admits := n.Admits(spec) == ""
		for i := range n.GPUs {
			t := n.GPUs[i].Type
			if total[t] == 0 {
				types = append(types, t)
			}
			total[t]++
			here[t]++
		}
		for _, t := range types {
			if admits {
				room[t] += Room(n, spec, here[t])
			}
		}
		return true
	})
	slices.Sort(types)
	var have []string
	for _, t := range types {
		if AllowsType(spec, t) && room[t] >= spec.Least() {
			return nil
		}
		has := fmt.Sprintf("%d of type %s", total[t], t)
		if AllowsType(spec, t) && room[t] < total[t] {
			has += fmt.Sprintf(" (%d with the CPUs, memory, shape and labels asked for)", room[t])
		}
		have = append(have, has)
	}
	if len(have) == 0 {
		have = []string{"no GPU"}
	}
	return fmt.Errorf("a gang of %s can never start here: the cluster has at most %s: ask for fewer GPUs, another type, or less on each node",
		spec.Wants(), strings.Join(have, ", "))
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
		out += ", within one " + s.Topology.Level
	}
	return out
}
