package sim

import (
	"fmt"
	"math/rand/v2"

	"github.com/gangline/gangline/scheduler/cluster"
)

// What each node has for each of its GPUs.
const (
	cpuPerGPU = 16_000   // thousandths
	memPerGPU = 64 << 30 // bytes
)

// Machine is one node of a scenario.
type Machine struct {
	Number int    `json:"node"` // its name is "n" and this number; others' numbers stay when one is taken away
	GPUs   int    `json:"gpus"` // 1..16
	Type   string `json:"type"`
	Rack   int    `json:"rack"`
}

func (m *Machine) name() string { return fmt.Sprintf("n%d", m.Number) }

// island is how many GPUs of the node lie in one island: half of them.
func (m *Machine) island() int { return max(m.GPUs/2, 1) }

// zone is one of two: every other node is in the other one.
func (m *Machine) zone() string { return zoneOf(m.Number) }

func (m *Machine) rack() string { return fmt.Sprintf("r%d", m.Rack) }

func (m *Machine) labels() []cluster.Label {
	return []cluster.Label{{Key: rackLabel, Value: m.rack()}, {Key: zoneLabel, Value: m.zone()}}
}

func zoneOf(number int) string { return [...]string{"a", "b"}[number%2] }

// typeOf is the type of a node's GPUs: every third node of three or more has another one.
func typeOf(node, nodes int) string {
	if nodes >= 3 && node%3 == 2 {
		return "a100"
	}
	return "h100"
}

// makeMachines makes the nodes of a config: two to a rack, and all of one size; mixed ones are of several sizes and types, and
// up to four to a rack.
func makeMachines(cfg Config, rng *rand.Rand) []Machine {
	out := make([]Machine, cfg.Nodes)
	perRack := 2
	if cfg.Mixed {
		perRack = 1 + rng.IntN(4)
	}
	for i := range out {
		out[i] = Machine{Number: i, GPUs: cfg.GPUsPerNode, Type: typeOf(i, cfg.Nodes), Rack: i / perRack}
		if cfg.Mixed {
			out[i].GPUs = min(1<<rng.IntN(4), max(cfg.GPUsPerNode, 1))
			out[i].Type = [...]string{"h100", "h100", "a100", "l4"}[rng.IntN(4)]
		}
	}
	return out
}

// gpusOf is the number of GPUs of a type, or of all types if it is empty.
func gpusOf(ms []Machine, gpuType string) int {
	n := 0
	for i := range ms {
		if gpuType == "" || ms[i].Type == gpuType {
			n += ms[i].GPUs
		}
	}
	return n
}

// typesOf are the types of GPUs, in order of the nodes.
func typesOf(ms []Machine) []string {
	var out []string
	seen := map[string]bool{}
	for i := range ms {
		if t := ms[i].Type; !seen[t] {
			seen[t] = true
			out = append(out, t)
		}
	}
	return out
}

// room is how many GPUs of the node one gang could have; with GPUsPerNode just so many, or none.
func (m *Machine) room(spec *cluster.JobSpec) int {
	room := m.GPUs
	if spec.Topology.Required && spec.Topology.Level == cluster.LevelIsland {
		room = m.island()
	}
	if spec.CPUPerGPU > 0 {
		room = min(room, m.GPUs*cpuPerGPU/int(spec.CPUPerGPU))
	}
	if spec.MemPerGPU > 0 {
		room = min(room, m.GPUs*(memPerGPU>>20)/int(spec.MemPerGPU>>20))
	}
	if per := int(spec.GPUsPerNode); per > 0 {
		if room < per {
			return 0
		}
		room = per
	}
	return room
}

// fits reports whether the whole cluster, with nothing else on it, could run a gang. It says the same as
// State.CanEverFit, counted apart from it.
func fits(ms []Machine, spec *cluster.JobSpec) bool {
	need := int(spec.Least())
	for _, t := range typesOf(ms) {
		if !cluster.AllowsType(spec, t) {
			continue
		}
		racks := map[int]int{}
		sum, rack, node := 0, 0, 0
		for i := range ms {
			m := &ms[i]
			if m.Type != t || (len(spec.Selector) > 0 && spec.Selector[0].Value != m.zone()) {
				continue
			}
			room := m.room(spec)
			sum += room
			racks[m.Rack] += room
			rack, node = max(rack, racks[m.Rack]), max(node, room)
		}
		switch w := spec.Topology; {
		case !w.Required && sum >= need, w.Required && w.Level == "rack" && rack >= need, w.Required && cluster.WithinNode(w.Level) && node >= need:
			return true
		}
	}
	return false
}
