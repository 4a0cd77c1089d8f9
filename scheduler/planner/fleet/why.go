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
	LackShape   Lack = 4 // free, but too few nodes have PerNode of them, or by the score consolidated all
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

// Why says why Place finds nothing for a gang. It costs little but for what is
// kept for others, which it looks for on all nodes.
func (f *Fleet) Why(sh *Shape, size int32, q *Query) Obstacle {
	f.settle()
	worst := Obstacle{Size: size, Lack: LackType, Level: sh.Level}
	for _, p := range f.allowed(sh, q) {
		o := f.whyPool(sh, size, q, p)
		if o.Lack == LackNothing {
			return o
		}
		if o.Lack > worst.Lack || (o.Lack == worst.Lack && o.Left > worst.Left) {
			worst = o
		}
	}
	return worst
}

// Stands reports whether an obstacle that Why told of a gang before surely reads
// the same now: whether too few GPUs are free still, or on too few nodes, of the one
// type that the gang may have. It looks at nothing but sums.
func (f *Fleet) Stands(o *Obstacle, sh *Shape, size int32) bool {
	types := sh.Types
	if len(types) == 0 {
		types = f.common
	}
	if (o.Lack != LackFree && o.Lack != LackShape) || o.Size != size || sh.Shared() || f.unsettled || len(types) != 1 {
		return false
	}
	p, need := f.pool(types[0]), int64(size)
	if p == nil || p.sum.Open < need || p.sum.Total != o.Sum.Total || p.sum.Alive != o.Sum.Alive || p.sum.Open != o.Sum.Open {
		return false
	}
	if p.sum.Free < need {
		return o.Lack == LackFree
	}
	return o.Lack == LackShape && sh.PerNode > 0 && p.atLeast(sh.PerNode)*int64(sh.PerNode) < need
}

// whyPool is Why for one type of GPU.
func (f *Fleet) whyPool(sh *Shape, size int32, q *Query, p *pool) Obstacle {
	o := Obstacle{Size: size, Type: p.gpuType, Sum: p.sum, Level: sh.Level}
	short := func(lack Lack, left int64) bool {
		if left >= int64(size) {
			o.Room = left
			return false
		}
		o.Lack, o.Left = lack, left
		return true
	}
	free := p.sum.Free
	if sh.Shared() {
		free = p.chips(sh)
	}
	switch {
	case short(LackAlive, p.sum.Open), short(LackFree, free),
		sh.PerNode > 0 && short(LackShape, p.atLeast(sh.PerNode)*int64(sh.PerNode)):
		return o
	}
	bare := f.view(f.bare(sh.class), p)
	if short(LackLabel, bare.most(sh, nil)) {
		o.Label = f.lacking(sh, bare)
		return o
	}
	unbound := sh.class.key
	unbound.within = byNone
	if short(LackCPU, f.view(f.classOf(unbound, sh.class.spec), p).most(sh, nil)) {
		return o
	}
	v := f.view(sh.class, p)
	if sh.Required {
		room, name := f.bestDomain(v, sh, f.barred(sh, &Query{Any: true}, false))
		if short(LackDomain, room) {
			o.Domain = name
			return o
		}
	}
	barred := f.barred(sh, q, false)
	room := v.most(sh, barred)
	if sh.Required {
		room, _ = f.bestDomain(v, sh, barred)
	}
	if short(LackKept, room) {
		o.Keeper = f.keeper(v, sh, q)
		return o
	}
	if f.score == cluster.ScoreConsolidated && !sh.Shared() && !sh.Required {
		short(LackShape, f.offer(v, barred).total(sh))
	}
	return o
}

// chips is on how many nodes a GPU has room for a share, at most one for each
// value of what is free and one for the wholly free.
func (p *pool) chips(sh *Shape) int64 {
	n := min(p.sum.Free, 1)
	for h := p.hole(int16(sh.Share)); h < cluster.WholeGPU; h = p.hole(h + 1) {
		n += int64(p.holes[h].count)
	}
	return n
}

// most is how many GPUs a gang could have of a view's nodes. For a share it is
// a number of nodes.
func (v *view) most(sh *Shape, barred *set) (n int64) {
	if sh.Shared() {
		for h := v.pool.hole(int16(sh.Share)); h < cluster.WholeGPU; h = v.pool.hole(h + 1) {
			if v.pool.holes[h].next(0, &v.can, barred) >= 0 {
				n++
			}
		}
	}
	for k := max(sh.PerNode, 1); int(k) < len(v.by); k++ {
		n += int64(v.by[k].without(barred)) * int64(sh.gives(k))
	}
	return n
}

// bare is the class with the same labels and taints that needs nothing beside GPUs.
func (f *Fleet) bare(c *class) *class {
	return f.classOf(classKey{admission: c.key.admission}, c.spec)
}

// bestDomain returns the room and the name of the domain with the most.
func (f *Fleet) bestDomain(v *view, sh *Shape, barred *set) (room int64, name string) {
	switch {
	case sh.level == nowhere:
		return 0, ""
	case sh.Shared():
		return v.most(sh, barred), ""
	case sh.level == oneNode:
		s := f.offer(v, barred)
		k := s.top()
		if room = int64(sh.gives(k)); room > 0 {
			name = f.nodes[s.pop(k)].is.Name
		}
		return room, name
	}
	for d, k := range f.capacity(v, sh, sh.level, barred) {
		if int64(k) > room {
			room, name = int64(k), f.doms[sh.level].names[d]
		}
	}
	return room, name
}

// lacking says what a job lacks for most of the nodes that are not for it. It
// counts all of their GPUs, so that the answer changes seldom.
func (f *Fleet) lacking(sh *Shape, v *view) string {
	if v.lacks != "" {
		return v.lacks
	}
	var said votes[string]
	for pos := v.not.next(0, nil, nil); pos >= 0; pos = v.not.next(pos+1, nil, nil) {
		x := f.nodes[pos]
		said.add(x.is.Admits(&sh.class.spec), int64(x.room(v.pool).total))
	}
	v.lacks = said.most()
	return v.lacks
}

// keeper returns the hold that keeps the most nodes with room from a query.
func (f *Fleet) keeper(v *view, sh *Shape, q *Query) Hold {
	var said votes[Hold]
	for _, g := range f.groups {
		for i := range g.holds {
			if g.holds[i].opens(q) || g.open(q) {
				continue
			}
			for pos := g.nodes.next(0, nil, nil); pos >= 0; pos = g.nodes.next(pos+1, nil, nil) {
				said.add(g.holds[i], int64(sh.gives(int32(v.room[pos]))))
			}
		}
	}
	best := -1
	for i := range said.keys {
		if best < 0 || said.count[i] > said.count[best] || (said.count[i] == said.count[best] && compareHolds(said.keys[i], said.keys[best]) < 0) {
			best = i
		}
	}
	if best < 0 {
		return Hold{}
	}
	return said.keys[best]
}

// votes counts how many GPUs each cause keeps away.
type votes[K comparable] struct {
	keys  []K
	count []int64
}

// maxVotes bounds how many causes are told apart.
const maxVotes = 64

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

// most returns the cause with the most votes, the first of equal ones.
func (v *votes[K]) most() (key K) {
	best := int64(0)
	for i := range v.keys {
		if v.count[i] > best {
			best, key = v.count[i], v.keys[i]
		}
	}
	return key
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
		if spec.GPUsPerNode == 0 {
			return want + ": enough GPUs are free, but too few nodes are wholly free, which the policy's score consolidated asks for"
		}
		return fmt.Sprintf("%s: enough GPUs are free, but too few nodes have %d free GPUs with the CPUs and memory for them", want, spec.GPUsPerNode)
	case LackLabel:
		return fmt.Sprintf("%s: enough GPUs are free, but too few on nodes for this job: others need %s", want, o.Label)
	case LackCPU:
		if spec.GPUsPerNode > 0 {
			return fmt.Sprintf("%s: enough GPUs are free, but too few nodes have %d free GPUs with the CPUs and memory for them", want, spec.GPUsPerNode)
		}
		return want + ": enough GPUs are free, but not with the CPUs and memory for them"
	case LackDomain:
		return fmt.Sprintf("%s: enough GPUs are free, but not within one %s", want, cluster.LevelText(o.Level))
	default:
		return want + ": enough GPUs are free, but they are kept " + o.Keeper.text()
	}
}

// Reads reports whether another obstacle reads the same, as Text says it to jobs
// of one shape.
func (o *Obstacle) Reads(p *Obstacle) bool {
	return o.Lack == p.Lack && o.Sum.Total == p.Sum.Total && o.Sum.Alive == p.Sum.Alive && o.Sum.Open == p.Sum.Open &&
		o.Size == p.Size && o.Type == p.Type && o.Label == p.Label && o.Level == p.Level && o.Keeper == p.Keeper
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
		if spec.GPUsPerNode == 0 {
			fmt.Fprintf(&b, ", %d of them on nodes wholly free and one more", o.Left)
			break
		}
		fmt.Fprintf(&b, ", %d of them on nodes with %d or more", o.Left, spec.GPUsPerNode)
	case LackLabel:
		fmt.Fprintf(&b, ", %d of them on nodes for this job", o.Left)
	case LackCPU:
		fmt.Fprintf(&b, ", %d of them with the CPUs and memory", o.Left)
	case LackDomain:
		if o.Domain == "" {
			fmt.Fprintf(&b, ", none of them in a %s", cluster.LevelText(o.Level))
		} else {
			fmt.Fprintf(&b, ", the most in one %s are %d in %s", cluster.LevelText(o.Level), o.Left, strings.Trim(o.Domain, "/"))
		}
	case LackKept:
		fmt.Fprintf(&b, ", %d of them not kept", o.Left)
	case LackNothing, LackType, LackAlive, LackFree:
	}
	b.WriteByte(')')
	return b.String()
}
