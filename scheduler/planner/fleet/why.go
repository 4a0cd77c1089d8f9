package fleet

import (
	"fmt"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Lack is what a gang waits for.
type Lack uint8

// Lacks, in the order in which they are looked for: each means that none of
// those above it is the cause.
const (
	LackNothing Lack = 0 // it fits
	LackType    Lack = 1 // no node has GPUs of the types asked for
	LackAlive   Lack = 2 // too few of them are healthy and on live nodes that take jobs
	LackFree    Lack = 3 // too few are free
	LackShape   Lack = 4 // free, but too few nodes have PerNode of them
	LackLabel   Lack = 5 // free, but on nodes that are not for the job
	LackCPU     Lack = 6 // free, but without the CPUs or the memory
	LackDomain  Lack = 7 // free, but not within one domain of the level
	LackKept    Lack = 8 // free, but kept for others
)

// Obstacle says why a gang does not fit now, on the type of GPU that comes
// nearest to it. Numbers of GPUs are of that type.
type Obstacle struct {
	Lack  Lack
	Size  int32  // of the gang
	Type  string // of GPU that comes nearest
	Sum   Sum    // of that type
	Room  int64  // GPUs that the gang could have if only the causes above Lack counted
	Left  int64  // GPUs that it could have with Lack too
	Label string // LackLabel: what most of the nodes with room lack, as cluster.Node.Admits says it

	Level  string // LackDomain: the level
	Domain string // LackDomain: its domain with the most room; "" if none has any
	Keeper Hold   // LackKept: the most common hold on the nodes with room
}

// Fits reports whether the gang fits.
func (o *Obstacle) Fits() bool { return o.Lack == LackNothing }

// Why says why Place finds nothing for a gang.
func (f *Fleet) Why(sh *Shape, size int32, q *Query) Obstacle {
	worst := Obstacle{Size: size, Lack: LackType}
	first := true
	for _, t := range f.allowed(sh, q) {
		o := f.whyType(sh, size, q, t)
		if first || o.Lack > worst.Lack || o.Lack == LackNothing || (o.Lack == worst.Lack && o.Left > worst.Left) {
			worst = o
		}
		first = false
		if o.Lack == LackNothing {
			return o
		}
	}
	return worst
}

// whyType is Why for one type of GPU.
func (f *Fleet) whyType(sh *Shape, size int32, q *Query, gpuType string) Obstacle {
	o := Obstacle{Size: size, Type: gpuType, Sum: f.Type(gpuType), Level: sh.Level}
	want := int64(size)
	free := o.Sum.Free
	if sh.Shared() {
		want, free = 1, f.holes(sh, gpuType)
	}
	step := func(lack Lack, left int64) bool {
		o.Lack, o.Left = lack, left
		if left >= want {
			o.Room = left
			return false
		}
		return true
	}
	switch {
	case step(LackType, min(o.Sum.Total, want)) && o.Sum.Total == 0,
		step(LackAlive, o.Sum.Open),
		step(LackFree, free):
		return o
	}
	t := f.tally(sh, q, gpuType)
	switch {
	case step(LackShape, t.shape):
	case step(LackLabel, t.label):
		o.Label = t.lacks.most()
	case step(LackCPU, t.cpu):
	case sh.Required && step(LackDomain, t.domain):
		o.Domain = t.name
	case step(LackKept, t.kept):
		o.Keeper = t.holds.most()
	default:
		o.Lack = LackNothing
	}
	return o
}

// tally is how many GPUs of a type a gang could have, one condition after the other.
type tally struct {
	shape, label, cpu, domain, kept int64
	name                            string // of the best domain
	lacks                           votes[string]
	holds                           votes[Hold]
}

// votes counts how many GPUs each cause keeps away; the first of equals wins.
type votes[K comparable] struct {
	keys  []K
	count []int64
}

func (v *votes[K]) add(key K, n int64) {
	for i := range v.keys {
		if v.keys[i] == key {
			v.count[i] += n
			return
		}
	}
	if len(v.keys) < maxVotes {
		v.keys, v.count = append(v.keys, key), append(v.count, n)
	}
}

// maxVotes bounds how many causes are told apart.
const maxVotes = 64

func (v *votes[K]) most() (key K) {
	best := int64(0)
	for i := range v.keys {
		if v.count[i] > best {
			best, key = v.count[i], v.keys[i]
		}
	}
	return key
}

func (f *Fleet) tally(sh *Shape, q *Query, gpuType string) tally {
	var t tally
	all, open := map[string]int64{}, map[string]int64{}
	kept := int64(0)
	for _, id := range f.ids {
		x := f.nodes[id]
		shaped := func(k int32) int64 {
			if sh.PerNode > 0 && k >= sh.PerNode {
				return int64(sh.PerNode)
			} else if sh.PerNode > 0 {
				return 0
			}
			return int64(k)
		}
		free := x.whole(gpuType)
		if sh.Shared() {
			free = x.hole(sh, gpuType)
		}
		k := shaped(free)
		if k == 0 {
			continue
		}
		t.shape += k
		if lacks := x.is.Admits(&sh.spec); lacks != "" {
			t.lacks.add(lacks, k)
			continue
		}
		t.label += k
		if k = shaped(x.fit(sh, free)); k == 0 {
			continue
		}
		t.cpu += k
		isOpen := x.open(q)
		if isOpen {
			kept += k
		}
		for i := range x.holds {
			if !x.holds[i].opens(q) {
				t.holds.add(x.holds[i], k)
			}
		}
		if !sh.Required {
			continue
		}
		d := f.policy.Domain(x.is, sh.Level)
		if d == "" {
			continue
		}
		if all[d] += k; all[d] > t.domain {
			t.domain, t.name = all[d], d
		}
		if isOpen {
			open[d] += k
		}
	}
	t.kept = kept
	if sh.Required {
		t.kept = 0
		for _, k := range open { // any order: a maximum
			t.kept = max(t.kept, k)
		}
	}
	return t
}

// hole is 1 if a GPU of the node has room for the share, else 0.
func (x *node) hole(sh *Shape, gpuType string) int32 {
	for i, free := range x.free {
		if x.is.GPUs[i].Type == gpuType && free >= sh.Share {
			return 1
		}
	}
	return 0
}

// holes is on how many nodes a GPU has room for the share.
func (f *Fleet) holes(sh *Shape, gpuType string) (n int64) {
	for _, id := range f.ids {
		n += int64(f.nodes[id].hole(sh, gpuType))
	}
	return n
}

// Text is the reason as a sentence that starts with "waits for". It names only
// what changes seldom, so that a long queue does not write its reasons anew
// whenever a GPU is freed.
func (o *Obstacle) Text(spec *cluster.JobSpec) string {
	want := "waits for " + spec.Wants()
	switch o.Lack {
	case LackNothing:
		return want + ": it fits"
	case LackType:
		return want + ": no node has joined with such GPUs"
	case LackAlive:
		if o.Sum.Alive >= int64(o.Size) {
			return fmt.Sprintf("%s: the cluster has %d, but only %d are on nodes that take jobs: others are drained", want, o.Sum.Total, o.Sum.Open)
		}
		return fmt.Sprintf("%s: the cluster has %d, but only %d are healthy and on live nodes", want, o.Sum.Total, o.Sum.Alive)
	case LackFree:
		return fmt.Sprintf("%s: the cluster has %d, and too few are free", want, o.Sum.Alive)
	case LackShape:
		return fmt.Sprintf("%s: enough GPUs are free, but too few nodes have %d free GPUs with the CPUs and memory for them", want, spec.GPUsPerNode)
	case LackLabel:
		return fmt.Sprintf("%s: enough GPUs are free, but too few on nodes for this job: others need %s", want, o.Label)
	case LackCPU:
		if spec.GPUsPerNode > 0 {
			return fmt.Sprintf("%s: enough GPUs are free, but too few nodes have %d free GPUs with the CPUs and memory for them", want, spec.GPUsPerNode)
		}
		return want + ": enough GPUs are free, but not with the CPUs and memory for them"
	case LackDomain:
		return fmt.Sprintf("%s: enough GPUs are free, but not within one %s", want, o.Level)
	default:
		return want + ": enough GPUs are free, but they are kept " + o.Keeper.text()
	}
}

func (h *Hold) text() string {
	switch {
	case h.Job != 0:
		return fmt.Sprintf("free for job %d", h.Job)
	case h.Queue != "":
		return "for queue " + h.Queue
	default:
		return "for maintenance"
	}
}

// Detail is the reason with the numbers of this moment.
func (o *Obstacle) Detail(spec *cluster.JobSpec) string {
	of := "GPUs"
	if o.Type != "" {
		of = o.Type + " GPUs"
	}
	var b strings.Builder
	b.WriteString(o.Text(spec))
	if o.Lack == LackType || o.Lack == LackNothing {
		return b.String()
	}
	fmt.Fprintf(&b, " (%d %s: %d alive, %d free", o.Sum.Total, of, o.Sum.Alive, o.Sum.Free)
	switch o.Lack {
	case LackShape:
		fmt.Fprintf(&b, ", %d of them on nodes with %d or more", o.Left, spec.GPUsPerNode)
	case LackLabel:
		fmt.Fprintf(&b, ", %d of them on nodes for this job", o.Left)
	case LackCPU:
		fmt.Fprintf(&b, ", %d of them with the CPUs and memory", o.Left)
	case LackDomain:
		if o.Domain == "" {
			fmt.Fprintf(&b, ", none of them in a %s", o.Level)
		} else {
			fmt.Fprintf(&b, ", the most in one %s are %d in %s", o.Level, o.Left, o.Domain)
		}
	case LackKept:
		fmt.Fprintf(&b, ", %d of them not kept", o.Left)
	case LackNothing, LackType, LackAlive, LackFree:
	}
	b.WriteByte(')')
	return b.String()
}
