package replay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
	"github.com/gangline/gangline/sim/trace"
)

// yard is a cluster of which only what is free counts. The planner's fleet chooses the nodes.
type yard struct {
	cfg    *PlaceConfig
	fleet  *fleet.Fleet
	nodes  []*cluster.Node
	index  map[cluster.NodeID]int
	shapes map[shape]*fleet.Shape
	mix    mix
	next   cluster.JobID
	used   int64 // thousandths of GPUs

	starts, ends int64 // since the fleet was last told of the mix
	tellAt       int64 // pods seen by then
}

// lodger is a pod that has found room.
type lodger struct {
	id    cluster.JobID
	pod   *trace.Job
	parts []fleet.Part // of a pod without GPUs: one node, and nothing of it
}

func newYard(cfg *PlaceConfig, nodes []trace.Node) (*yard, error) {
	y := &yard{
		cfg: cfg, fleet: fleet.New(cfg.Score, cluster.DefaultPolicy().Levels), index: map[cluster.NodeID]int{},
		shapes: map[shape]*fleet.Shape{}, mix: mix{at: map[shape]int{}}, tellAt: firstTold,
	}
	for i := range nodes {
		n := register(&nodes[i], i)
		n.State = cluster.NodeReady
		y.nodes = append(y.nodes, &n)
		y.index[n.ID] = i
		y.fleet.Put(&n)
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("there are no nodes to place pods on")
	}
	return y, nil
}

// place finds room for a pod and takes it, or returns nil.
func (y *yard) place(p *trace.Job) (*lodger, error) {
	if !y.cfg.Known {
		y.mix.note(p)
	}
	if y.mix.seen >= y.tellAt && !y.cfg.Known {
		y.learn()
		y.tellAt = min(2*y.tellAt, y.tellAt+mostApart)
	}
	y.next++
	l := &lodger{id: y.next, pod: p}
	if p.GPUs == 0 {
		at := y.fleet.Aside(p.CPU, p.Mem)
		if at == "" {
			return nil, nil
		}
		l.parts = []fleet.Part{{Node: at}}
	} else if l.parts = slices.Clone(y.fleet.Place(y.shape(p), p.GPUs, &fleet.Query{})); l.parts == nil {
		return nil, nil
	}
	for i := range l.parts {
		l.parts[i].Taken = slices.Clone(l.parts[i].Taken)
		if err := y.change(l, &l.parts[i], 1); err != nil {
			return nil, err
		}
	}
	y.starts++
	y.used += volume(p)
	return l, nil
}

// remove lets a pod go.
func (y *yard) remove(l *lodger) {
	for i := range l.parts {
		_ = y.change(l, &l.parts[i], -1) // it held what it took: nothing can be wrong
	}
	y.ends++
	y.used -= volume(l.pod)
}

// change takes (1) or gives back (-1) one node's part of a pod, and tells the fleet of the node.
func (y *yard) change(l *lodger, part *fleet.Part, sign int64) error {
	at := y.index[part.Node]
	n := *y.nodes[at]
	n.GPUs = slices.Clone(n.GPUs)
	for _, g := range part.Taken {
		gpu := &n.GPUs[g]
		switch {
		case sign > 0 && gpu.FreeMilli() < l.pod.Milli:
			return fmt.Errorf("the planner put %d thousandths of a GPU where %d are free (%s)", l.pod.Milli, gpu.FreeMilli(), gpu.UUID)
		case l.pod.Milli == cluster.WholeGPU:
			if gpu.Job = 0; sign > 0 {
				gpu.Job = l.id
			}
		case sign > 0:
			gpu.Shares = append(slices.Clone(gpu.Shares), cluster.Share{Job: l.id, Epoch: 1, Milli: l.pod.Milli})
		default:
			gpu.Shares = slices.DeleteFunc(slices.Clone(gpu.Shares), func(s cluster.Share) bool { return s.Job == l.id })
		}
	}
	cpu, mem := l.pod.CPU, l.pod.Mem
	if gpus := int64(l.pod.GPUs); gpus > 0 {
		cpu, mem = each(cpu, gpus)*int64(len(part.Taken)), each(mem, gpus)*int64(len(part.Taken))
	}
	if n.CPUUsed, n.MemUsed = n.CPUUsed+sign*cpu, n.MemUsed+sign*mem; n.CPUUsed > n.CPUMilli || n.MemUsed > n.MemBytes {
		return fmt.Errorf("the planner put a pod on node %s, which lacks the CPUs or the memory for it", n.Name)
	}
	y.nodes[at] = &n
	y.fleet.Put(&n)
	return nil
}

// each is a pod's CPU or memory for one of its GPUs, rounded up.
func each(all, gpus int64) int64 { return (all + gpus - 1) / gpus }

// shape is what the fleet knows the pod's request by. A pod is on one node.
func (y *yard) shape(p *trace.Job) *fleet.Shape {
	key := shapeOf(p)
	sh := y.shapes[key]
	if sh == nil {
		gpus := int64(p.GPUs)
		spec := &cluster.JobSpec{GPUs: p.GPUs, GPUsPerNode: p.GPUs, GPUTypes: p.Types, CPUPerGPU: each(p.CPU, gpus), MemPerGPU: each(p.Mem, gpus)}
		if p.Milli < cluster.WholeGPU {
			spec.GPUMilli = p.Milli
		}
		sh = y.fleet.Shape(spec)
		y.shapes[key] = sh
	}
	return sh
}

func shapeOf(p *trace.Job) shape {
	return shape{types: strings.Join(p.Types, "|"), gpus: p.GPUs, milli: p.Milli, cpu: p.CPU, mem: p.Mem}
}

// When the fleet is told of the mix: soon, then seldom, since it costs.
const (
	firstTold = 16
	mostApart = 1024
)

// learn tells the fleet what has been asked for, and how much of what starts does so where others ended.
func (y *yard) learn() {
	churn := int64(0)
	if y.starts > 0 {
		churn = min(y.ends*milli/y.starts, milli)
	}
	if y.cfg.Known && y.cfg.Departures > 0 {
		churn = milli
	}
	y.starts, y.ends = 0, 0
	y.fleet.SetMix(y.mix.items(), int32(churn)) //nolint:gosec // at most 1000
}

// mix is what pods have asked for, by kind.
type mix struct {
	at    map[shape]int
	kinds []kind
	seen  int64
}

// kind is one request and how often it was seen.
type kind struct {
	pod  *trace.Job
	seen int64
}

func (m *mix) note(p *trace.Job) {
	key := shapeOf(p)
	i, known := m.at[key]
	if !known {
		i = len(m.kinds)
		m.at[key] = i
		m.kinds = append(m.kinds, kind{pod: p})
	}
	m.kinds[i].seen++
	m.seen++
}

// items is the mix as the fleet wants it.
func (m *mix) items() []fleet.MixItem {
	out := make([]fleet.MixItem, len(m.kinds))
	for i := range m.kinds {
		p := m.kinds[i].pod
		gpus := int64(max(p.GPUs, 1))
		out[i] = fleet.MixItem{GPUs: p.GPUs, Share: p.Milli, CPU: each(p.CPU, gpus), Mem: each(p.Mem, gpus), Types: p.Types, Weight: m.kinds[i].seen}
	}
	return out
}
