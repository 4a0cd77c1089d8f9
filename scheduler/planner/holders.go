package planner

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// Holder is a job that has some of what another one lacks, or a queue where no
// few jobs have most of it.
type Holder struct {
	Job   cluster.JobID // 0: all jobs of Queue and those below it
	User  string
	Queue string
	Milli int64        // milli-GPUs that it has of what is lacked; of a queue about so much if Sampled
	Until cluster.Time // when it is expected to let go, 0: nobody knows, or a queue
	// Limit: Until is the job's time limit, not what jobs like it have needed.
	Limit bool
}

// Bounds of looking for holders, so that an explanation takes less than a
// millisecond.
const (
	maxHolders = 3
	someNodes  = 128    // nodes that stand for all of a type
	maxScan    = 20_000 // running jobs; with more of them, none is named for a queue's limit
)

// heldPart is what one job has of something, or about has where only some nodes
// were looked at.
type heldPart struct {
	job   *cluster.Job
	milli int64
}

// search collects who holds something.
type search struct {
	x       *Index
	parts   []heldPart
	at      map[cluster.JobID]int
	counts  func(n *cluster.Node, g *cluster.GPU, r *run) bool
	scale   int64 // thousandths for which each GPU that is seen counts
	sampled bool
}

func (x *Index) search(counts func(*cluster.Node, *cluster.GPU, *run) bool) *search {
	return &search{x: x, at: map[cluster.JobID]int{}, counts: counts, scale: 1000}
}

// node looks at one node.
func (s *search) node(id cluster.NodeID) {
	n := s.x.state.Node(id)
	if n == nil {
		return
	}
	for i := range n.GPUs {
		g := &n.GPUs[i]
		if g.Job != 0 {
			s.add(n, g, g.Job, cluster.WholeGPU)
		}
		for _, share := range g.Shares {
			s.add(n, g, share.Job, int64(share.Milli))
		}
	}
}

func (s *search) add(n *cluster.Node, g *cluster.GPU, id cluster.JobID, milli int64) {
	r := s.x.jobs.run(id)
	if r == nil || !s.counts(n, g, r) {
		return
	}
	i, known := s.at[id]
	if !known {
		i = len(s.parts)
		s.at[id] = i
		s.parts = append(s.parts, heldPart{job: r.job})
	}
	s.parts[i].milli += milli * s.scale / 1000
}

// some looks at some of the nodes with GPUs of a type, which stand for all.
func (s *search) some(gpuType string, most int) {
	all := s.x.fleet.NodesOf(gpuType)
	if all > most {
		s.scale, s.sampled = int64(all)*1000/int64(most), true
	}
	s.x.fleet.EachSome(gpuType, most, s.node)
	s.scale = 1000
}

// holdersOfRoom finds who has the GPUs that a job lacks on the nodes where it
// could run: those of the domain that comes nearest, or all of the type.
func (x *Index) holdersOfRoom(ex *Explanation, j *cluster.Job) {
	s := x.search(func(n *cluster.Node, g *cluster.GPU, _ *run) bool {
		return g.Type == ex.GPUType && g.Healthy && n.State == cluster.NodeReady && n.Drain == nil && n.Admits(j.Spec) == ""
	})
	switch {
	case ex.Binding == BindDomain && ex.Domain == "":
		return
	case ex.Binding == BindDomain && cluster.WithinNode(ex.Level):
		if n := x.state.NodeByName(ex.Domain); n != nil {
			s.node(n.ID)
		}
	case ex.Binding == BindDomain:
		x.fleet.EachIn(ex.Level, ex.Domain, func(id cluster.NodeID) bool {
			s.node(id)
			return true
		})
	case ex.Binding == BindFree || ex.Binding == BindShape || ex.Binding == BindLabel:
		s.some(ex.GPUType, someNodes)
	default:
		return
	}
	x.sumUp(ex, s)
}

// holdersOfQueue finds who holds what counts for a queue's limit or quota.
func (x *Index) holdersOfQueue(ex *Explanation, q *quota.Queue, user string) {
	counts := func(r *run) bool {
		return (r.q == q || Below(r.q.Path, q.Path)) && (ex.GPUType == "" || r.gpuType == ex.GPUType) && (user == "" || r.job.User == user)
	}
	s := x.search(func(_ *cluster.Node, _ *cluster.GPU, r *run) bool { return counts(r) })
	types := []string{ex.GPUType}
	if ex.GPUType == "" {
		types = x.fleet.Types()
	}
	alive := int64(0)
	for _, t := range types {
		alive += x.fleet.Type(t).Alive * cluster.WholeGPU
	}
	if user == "" && x.tree.Used(q, ex.GPUType) > alive/20 && x.jobs.holding > someNodes {
		for _, t := range types {
			s.some(t, max(someNodes/len(types), 1))
		}
	} else if x.jobs.holding <= maxScan {
		for r := range x.jobs.runs() {
			if counts(r) {
				s.parts = append(s.parts, heldPart{job: r.job, milli: r.milli})
			}
		}
	}
	x.sumUp(ex, s)
}

// sumUp names the largest holders, and says when enough is expected to come free.
func (x *Index) sumUp(ex *Explanation, s *search) {
	parts := s.parts
	ex.Sampled = s.sampled
	slices.SortFunc(parts, func(a, b heldPart) int {
		return cmp.Or(cmp.Compare(b.milli, a.milli), cmp.Compare(a.job.ID, b.job.ID))
	})
	type ending struct {
		at    cluster.Time
		milli int64
	}
	total, top := int64(0), int64(0)
	var ends []ending
	for i, p := range parts {
		total += p.milli
		if i < maxHolders {
			top += p.milli
		}
		if end, _ := x.expectedEnd(p.job); end > 0 {
			ends = append(ends, ending{end, p.milli})
		}
	}
	slices.SortFunc(ends, func(a, b ending) int { return cmp.Compare(a.at, b.at) })
	need := ex.Lacks
	for _, e := range ends {
		if need -= e.milli; need <= 0 && ex.Lacks > 0 {
			ex.Clear = e.at
			break
		}
	}
	if 2*top < total {
		ex.Holders = x.queuesOf(ex, parts)
		return
	}
	for _, p := range parts[:min(len(parts), maxHolders)] {
		h := Holder{Job: p.job.ID, User: p.job.User, Queue: p.job.Spec.Queue, Milli: p.milli}
		if ex.Sampled {
			h.Milli = int64(p.job.Held()) * int64(p.job.Spec.Share())
		}
		h.Until, h.Limit = x.expectedEnd(p.job)
		ex.Holders = append(ex.Holders, h)
	}
}

// queuesOf names the queues whose jobs hold most: those below the one that binds,
// if one does.
func (x *Index) queuesOf(ex *Explanation, parts []heldPart) []Holder {
	at := map[string]int{}
	var out []Holder
	for _, p := range parts {
		path := p.job.Spec.Queue
		if Below(path, ex.Queue) && path != ex.Queue {
			rest := path[len(ex.Queue)+1:]
			name, _, _ := strings.Cut(rest, "/")
			path = ex.Queue + "/" + name
		}
		i, known := at[path]
		if !known {
			i = len(out)
			at[path] = i
			out = append(out, Holder{Queue: path})
		}
		out[i].Milli += p.milli
	}
	for i := range out {
		if ex.Sampled {
			out[i].Milli = roughly(out[i].Milli)
		}
	}
	slices.SortFunc(out, func(a, b Holder) int { return cmp.Or(cmp.Compare(b.Milli, a.Milli), cmp.Compare(a.Queue, b.Queue)) })
	return out[:min(len(out), maxHolders)]
}

// roughly rounds a number of milli-GPUs to two digits, and to whole GPUs.
func roughly(milli int64) int64 {
	digit := int64(cluster.WholeGPU)
	for milli/digit >= 100 {
		digit *= 10
	}
	return (milli + digit/2) / digit * digit
}

// expectedEnd is when a job is expected to let go of its GPUs, 0 if nobody
// knows, and whether that is its time limit.
func (x *Index) expectedEnd(j *cluster.Job) (at cluster.Time, limit bool) {
	if j.State == cluster.Stopping {
		return x.now.Add(j.Spec.Warn + j.Spec.Grace), false
	}
	if _, d := x.state.LevelOf(j, x.now); d > 0 {
		at = x.now.Add(d)
	}
	if d := j.Spec.TimeLimit; d > 0 {
		if end := j.StartedAt.Add(d); at == 0 || end < at {
			return max(end, x.now), true
		}
	}
	return at, false
}
