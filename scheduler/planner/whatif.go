package planner

import (
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// imagine returns a job's entry in a lane as it would have one, without putting
// it into the index. Of a job that is pending its own is returned, if what it
// asks for is the same.
func (x *Index) imagine(j *cluster.Job) *entry {
	e := &entry{job: j, key: x.keyOf(j)}
	if own := x.jobs.entry(j.ID); own != nil && own.job.Spec == j.Spec {
		e.key = max(own.key, e.key)
		if own.lane != nil {
			e.key = own.key
		}
	}
	fs := x.fleet.Shape(j.Spec)
	q := x.tree.Queue(j.Spec.Queue)
	l := &lane{laneKey: laneKeyOf(j, q, fs), q: q, shape: &shape{Shape: fs, pos: -1}, pos: -1, wpos: -1}
	l.need = int64(fs.Least) * int64(fs.Share)
	l.offset = x.offsetAt(l.q, l.user)
	l.borrow = x.borrows(l)
	if own := x.jobs.entry(j.ID); own != nil && own.lane != nil && own.job.Spec == j.Spec {
		l.borrow = own.lane.borrow // it may be found out a little later than it changes
	}
	l.jobs.items = []*entry{e}
	e.lane = l
	return e
}

// Setback is by how much fair share puts a job back in the order, as if it had
// been submitted so much later; forward, if negative. The job may be one that the
// state does not have. Call it after Plan; it changes nothing.
func (x *Index) Setback(j *cluster.Job) time.Duration {
	return time.Duration(x.imagine(j).lane.offset) * time.Millisecond
}

// Fit is where a job would go now.
type Fit struct {
	GPUType string
	Nodes   []FitNode // in order of their ranks
}

// FitNode is how many GPUs a job would have on one node.
type FitNode struct {
	Node cluster.NodeID
	GPUs int32 // 0: not told
}

// Fits says where a job would go if the next plan could start it, all others
// being as they are: by the limits of its queue, by what is free and by what is
// kept for others. The job may be one that the state does not have. Call it
// after Plan; it changes nothing.
func (x *Index) Fits(j *cluster.Job) (Fit, bool) {
	if r := x.jobs.run(j.ID); r != nil && r.planned && r.job.Spec == j.Spec {
		return x.planned(r), true
	}
	e := x.imagine(j)
	if j.Unmet != 0 || j.NotBefore > x.now || x.atArrayBound(j) || x.strictlyBefore(e.lane) != nil {
		return Fit{}, false
	}
	types, blocked := x.allowed(e.lane)
	if blocked != nil {
		return Fit{}, false
	}
	mark := x.fleet.Mark()
	defer x.fleet.Undo(mark)
	st, ok := x.place(e, types)
	if !ok {
		return Fit{}, false
	}
	return fitOf(st), true
}

// planned is where the last plan puts a job, node by node.
func (x *Index) planned(r *run) Fit {
	fit := Fit{GPUType: r.gpuType}
	i := slices.IndexFunc(x.expected, func(s Start) bool { return s.Job == r.job.ID })
	for _, id := range nodesOf(x.expected[i].Workers) {
		fit.Nodes = append(fit.Nodes, FitNode{Node: id})
	}
	return fit
}

func fitOf(st start) Fit {
	fit := Fit{GPUType: st.gpuType}
	for i := range st.workers {
		w := &st.workers[i]
		if n := len(fit.Nodes); n == 0 || fit.Nodes[n-1].Node != w.Node {
			fit.Nodes = append(fit.Nodes, FitNode{Node: w.Node})
		}
		fit.Nodes[len(fit.Nodes)-1].GPUs += int32(len(w.GPUs)) //nolint:gosec // at most MaxNodeGPUs
	}
	return fit
}

// LargestNow is with how many GPUs a job could start now if it asked for fewer,
// at least 1; 0 if with none.
func (x *Index) LargestNow(j *cluster.Job) int32 {
	e := x.imagine(j)
	if j.Unmet != 0 || j.NotBefore > x.now || x.atArrayBound(j) || x.strictlyBefore(e.lane) != nil {
		return 0
	}
	sh := e.lane.shape
	e.lane.need = int64(max(sh.PerNode, 1)) * int64(sh.Share)
	types, _ := x.allowed(e.lane)
	most := int32(0)
	for _, t := range types {
		q := x.query(j, []string{t})
		size := min(int64(x.fleet.Most(sh.Shape, &q)), x.tree.Most(e.lane.q, j.User, t)/int64(sh.Share))
		if sh.PerNode > 0 {
			size -= size % int64(sh.PerNode)
		}
		most = max(most, int32(size)) //nolint:gosec // at most the gang's size
	}
	return most
}

// atArrayBound reports whether as many members of a job's array run as may.
func (x *Index) atArrayBound(j *cluster.Job) bool {
	a := x.arrays[j.Array]
	return j.Array != 0 && j.Spec.Array.Parallel > 0 && a != nil && a.holding >= j.Spec.Array.Parallel
}

// DryRun says which running jobs would be stopped so that a job could start,
// what each of them would lose, and where the job would go then. It goes by the
// rules of preemption for a job that has waited long enough for all of them.
// Nothing changes. It costs what a thorough plan does.
func (x *Index) DryRun(j *cluster.Job) (victims []Evict, nodes []cluster.NodeID) {
	if x.policy.Preemption.Off || j.Unmet != 0 {
		return nil, nil
	}
	waited := *j
	waited.PendingAt = min(j.PendingAt, x.now.Add(-waitBefore))
	e := x.imagine(&waited)
	if x.atArrayBound(j) || x.strictlyBefore(e.lane) != nil {
		return nil, nil
	}
	mark := x.fleet.Mark()
	defer x.fleet.Undo(mark)
	m := x.openMarket()
	defer m.close()
	m.round = true
	m.begin()
	var plan Plan
	m.claim(e, &plan)
	if len(plan.Keeps) > 0 {
		nodes = plan.Keeps[0].Nodes
	}
	return plan.Evicts, nodes
}

// Retract takes the starts of the last plan back, for who plans only to know
// what would be: to be called before the next Follow if nobody enacts the plan.
// The state that was followed must be as it was: a snapshot.
func (x *Index) Retract() {
	if x.state != nil {
		x.settle(x.state)
	}
}
