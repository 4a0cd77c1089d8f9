package fleet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Shape is what a gang asks of the nodes, without who asks. Equal requests
// share one Shape of a Fleet, so that Shapes can be compared as pointers and
// what was learned of one holds for all jobs that ask the same. It is not to
// be edited.
type Shape struct {
	ID          int   // 0, 1, 2... in the order in which the Fleet met them
	GPUs        int32 // wanted; of an elastic gang the largest number
	Least       int32 // smallest number with which it starts
	PerNode     int32 // exactly so many on each node; 0: as it comes
	Share       int32 // thousandths taken of each GPU, 1..1000
	CPU         int64 // thousandths of a CPU for each GPU
	Mem         int64 // bytes for each GPU
	Types       []string
	Level       string // topology level to stay within; empty: no wish
	Required    bool   // the level is a condition, not a preference
	Selector    []cluster.Label
	Tolerations []string

	within part   // of a node that the gang is to be in, as a wish or as a condition
	level  int    // index of Level among the policy's, or anywhere, oneNode, nowhere
	near   *class // like class, but within one part of a node: tried first if that is only a wish, else nil
	class  *class // what it has in common with shapes of other sizes
	next   *Shape // another one with the same hash
}

// Shared reports whether the shape asks for less than a whole GPU.
func (sh *Shape) Shared() bool { return sh.Share < cluster.WholeGPU }

// is reports whether a spec asks for this shape.
func (sh *Shape) is(spec *cluster.JobSpec) bool {
	return sh.GPUs == spec.GPUs && sh.Least == spec.Least() && sh.PerNode == spec.GPUsPerNode && sh.Share == spec.Share() &&
		sh.CPU == spec.CPUPerGPU && sh.Mem == spec.MemPerGPU && sh.Level == spec.Topology.Level && sh.Required == spec.Topology.Required &&
		slices.Equal(sh.Types, spec.GPUTypes) && slices.Equal(sh.Selector, spec.Selector) && slices.Equal(sh.Tolerations, spec.Tolerations)
}

// Shape returns the shape that a spec asks for. It allocates only when it
// meets one for the first time. Shapes are never forgotten: who expects very
// many makes a new Fleet once [Fleet.Shapes] is too large.
func (f *Fleet) Shape(spec *cluster.JobSpec) *Shape {
	if f.recent != nil && f.recent.is(spec) {
		return f.recent // most jobs ask what others do
	}
	key := hashSpec(spec)
	first := f.shapes[key]
	for sh := first; sh != nil; sh = sh.next {
		if sh.is(spec) {
			f.recent = sh
			return sh
		}
	}
	sh := &Shape{
		ID: f.shapeCount, GPUs: spec.GPUs, Least: spec.Least(), PerNode: spec.GPUsPerNode, Share: spec.Share(),
		CPU: spec.CPUPerGPU, Mem: spec.MemPerGPU, Types: slices.Clone(spec.GPUTypes),
		Level: spec.Topology.Level, Required: spec.Topology.Required,
		Selector: slices.Clone(spec.Selector), Tolerations: slices.Clone(spec.Tolerations), next: first,
	}
	sh.level = f.levelOf(sh.Level, sh.Required)
	if !sh.Shared() { // a share is of one GPU: it lies in one part anyway
		sh.within = partOf(sh.Level)
	}
	sh.class = f.class(sh, byNone)
	switch {
	case sh.within == byNone:
	case sh.Required:
		sh.class = f.class(sh, sh.within)
	default:
		sh.near = f.class(sh, sh.within)
	}
	f.shapeCount++
	f.shapes[key] = sh
	return sh
}

// Shapes is how many shapes the Fleet has met: their IDs are below it.
func (f *Fleet) Shapes() int { return f.shapeCount }

// class returns the class of a shape, within one part of a node or not.
func (f *Fleet) class(sh *Shape, within part) *class {
	var b strings.Builder
	for _, l := range sh.Selector {
		fmt.Fprintf(&b, "%q=%q,", l.Key, l.Value)
	}
	for _, t := range sh.Tolerations {
		fmt.Fprintf(&b, "%q,", t)
	}
	at := slices.Index(f.admissions, b.String())
	if at < 0 {
		at = len(f.admissions)
		f.admissions = append(f.admissions, b.String())
	}
	key := classKey{cpu: sh.CPU, mem: sh.Mem, admission: int32(at), within: within}
	return f.classOf(key, cluster.JobSpec{Selector: sh.Selector, Tolerations: sh.Tolerations})
}

// classOf returns the class with a key, made if there is none.
func (f *Fleet) classOf(key classKey, spec cluster.JobSpec) *class {
	c := f.classes[key]
	if c == nil {
		c = &class{key: key, spec: spec}
		f.classes[key] = c
	}
	return c
}

// hashSpec hashes what a Shape is made of (FNV-1a, a word at a time).
func hashSpec(spec *cluster.JobSpec) uint64 {
	h := uint64(14695981039346656037)
	word := func(v uint64) { h = (h ^ v) * 1099511628211; h ^= h >> 29 }
	text := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		word(uint64(len(s)))
	}
	word(uint64(spec.GPUs)<<32 | uint64(uint32(spec.Least())))
	word(uint64(spec.GPUsPerNode)<<32 | uint64(uint32(spec.Share())))
	word(uint64(spec.CPUPerGPU))
	word(uint64(spec.MemPerGPU))
	for _, t := range spec.GPUTypes {
		text(t)
	}
	text(spec.Topology.Level)
	if spec.Topology.Required {
		word(1)
	}
	for i := range spec.Selector {
		text(spec.Selector[i].Key)
		text(spec.Selector[i].Value)
	}
	for _, t := range spec.Tolerations {
		text(t)
	}
	return h
}
