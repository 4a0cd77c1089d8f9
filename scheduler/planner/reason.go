package planner

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// Pauses of the steps that stop jobs for the sake of others.
const (
	growAfter    = 10 * time.Minute // an elastic job's run before it may be stopped to grow
	atCheckpoint = time.Minute      // how fresh its checkpoint is to be then
	moveWindow   = time.Hour        // in which moves are counted
)

const strictText = "waits its turn: the policy starts jobs strictly in order (backfill is off)"

func arrayText(spec *cluster.JobSpec) string {
	return fmt.Sprintf("waits until another member of its array ends: at most %d run at once", spec.Array.Parallel)
}

func growText(from, to int32) string {
	return fmt.Sprintf("grows from %d to %d GPUs, which nobody waits for", from, to)
}

// quotaText says which queue's limit a lane waits for.
func quotaText(l *lane, r *refusal) string {
	spec := l.jobs.top().job.Spec
	gpus := r.Limit / cluster.WholeGPU
	switch {
	case r.Cause == quota.OwnQuota:
		return fmt.Sprintf("waits for quota of queue %s for %s: it is not preemptible, so it does not run on GPUs that its queue would borrow", l.q.Path, spec.Wants())
	case r.Cause == quota.UserLimit:
		return fmt.Sprintf("waits for %s: user %s may hold at most %d GPUs in queue %s", spec.Wants(), l.user, gpus, r.Blocker.Path)
	case r.Cause == quota.TotalLimit:
		return fmt.Sprintf("waits for %s: queue %s holds as many as its limit of %d GPUs allows", spec.Wants(), r.Blocker.Path, gpus)
	default:
		return fmt.Sprintf("waits for %s: queue %s holds as many as its limit of %d GPUs of type %s allows", spec.Wants(), r.Blocker.Path, gpus, r.gpuType)
	}
}

// heldText says why a lane does not fit on the types that its queue may take.
func (x *Index) heldText(l *lane) string {
	j := l.jobs.top().job
	types, _ := x.allowed(l)
	q := x.query(j, types)
	ob := x.fleet.Why(l.shape.Shape, l.shape.Least, &q)
	return x.obstacleText(l.shape, &ob, j.Spec)
}

// said is what stood against a shape when it was said in words last.
type said struct {
	ob   fleet.Obstacle
	spec *cluster.JobSpec // of the job for which nodes are kept, or nil
	text string
}

// obstacleText says in words what stands against a gang of a shape.
func (x *Index) obstacleText(sh *shape, ob *fleet.Obstacle, spec *cluster.JobSpec) string {
	var holder *cluster.Job
	var held *cluster.JobSpec
	if ob.Lack == fleet.LackKept && ob.Keeper.Job != 0 {
		if holder = x.state.Job(ob.Keeper.Job); holder != nil {
			held = holder.Spec
		}
	}
	if sh.said.text != "" && sh.said.ob.Reads(ob) && sh.said.spec == held {
		return sh.said.text
	}
	sh.said = said{ob: *ob, spec: held, text: ob.Text(spec)}
	if holder != nil {
		sh.said.text = fmt.Sprintf("waits behind job %d (priority %d, %s), which has waited long enough for GPUs to be kept free for it",
			holder.ID, holder.Spec.Priority, holder.Spec.Wants())
	}
	return sh.said.text
}

// anyQuery asks the fleet as if nothing were kept for anyone.
func (x *Index) anyQuery() *fleet.Query { return &fleet.Query{Any: true} }

// reasonList is the reasons of a plan that is being made.
type reasonList struct {
	all   []Reason       // in the memory of an earlier plan's
	texts map[string]int // where they are, of many
}

// fewReasons are as well looked through.
const fewReasons = 8

// find returns the place of a reason in the list, added if it is new.
func (r *reasonList) find(text string) int {
	n := len(r.all)
	if n <= fewReasons {
		if i := slices.IndexFunc(r.all, func(of Reason) bool { return of.Text == text }); i >= 0 {
			return i
		}
	} else {
		if r.texts == nil {
			r.texts = map[string]int{}
		}
		for i := len(r.texts); i < n; i++ {
			r.texts[r.all[i].Text] = i
		}
		if i, known := r.texts[text]; known {
			return i
		}
	}
	if n < cap(r.all) {
		r.all = r.all[:n+1]
		r.all[n] = Reason{Text: text, Jobs: r.all[n].Jobs[:0]}
	} else {
		r.all = append(r.all, Reason{Text: text})
	}
	return n
}

func sortReasons(reasons []Reason) {
	for i := range reasons {
		if len(reasons[i].Jobs) > 1 {
			slices.Sort(reasons[i].Jobs)
			reasons[i].Jobs = slices.Compact(reasons[i].Jobs) // a job may have been noted more than once
		}
	}
	if len(reasons) > 1 {
		slices.SortFunc(reasons, func(a, b Reason) int { return cmp.Compare(a.Jobs[0], b.Jobs[0]) })
	}
}
