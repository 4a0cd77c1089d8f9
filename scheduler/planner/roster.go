package planner

import (
	"math"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
)

// run is a job that holds GPUs, or is planned to, with what markets have found
// out of it. Small fields stand together: a hundred thousand jobs run.
type run struct {
	*group  // of its user in its queue
	job     *cluster.Job
	gpuType string
	milli   int64
	shape   *fleet.Shape
	on      *onNode      // on which its first worker was when a market asked last
	due     cluster.Time // from then on what is known of it may not be so any more; 0: it is not
	key     int64        // of its standing
	lost    int64        // milli-GPU-milliseconds of work and restart, once a search has asked for it

	place    int32 // in its group's roster, unless planned
	priority int32
	search   uint32 // in which by was found, see rightOf
	level    int16  // of its standing
	parts    int16  // of its level, less one for each former stop; negative: it may not be stopped by the order alone
	by       right  // by which it may be stopped
	planned  bool   // by the last plan: the state does not show it yet
	out      bool   // it is firm, young or stopping: neither a priority nor the order stops it
	firm     bool   // it may not be preempted
	passed   bool   // what is known of it holds only as long as the state does not change
	young    bool   // it has run for less than the policy guarantees
	shrink   bool   // an elastic job: it goes on with fewer GPUs
	stopping bool   // it does already
	gone     bool   // that, or taken by an earlier claim of this plan
}

// roster is the jobs of a group that hold GPUs, in no order, with how those of
// them stand together who are not out. A run knows its place in it, so that a
// change of a job costs no search: it only marks what is known as old, and the
// next market finds it out anew, once, however often the job has changed by then.
type roster struct {
	all    []*run
	place  int          // among the index's
	due    cluster.Time // the first of theirs
	passed bool         // of one of them
	some   bool         // not all are out
	lowest int32        // of their priorities
	worst  standing     // the latest key and the highest level
}

// enroll takes a job that holds GPUs into the roster of its group.
func (x *Index) enroll(r *run) {
	g := r.group
	if len(g.roster.all) == 0 {
		g.roster.place = len(x.running)
		x.running = append(x.running, g)
	}
	r.place = int32(len(g.roster.all)) //nolint:gosec // at most MaxLiveJobs
	g.roster.all = append(g.roster.all, r)
}

// strike takes a job out of its roster; the last one has its place from then on.
func (x *Index) strike(r *run) {
	of := &r.roster
	last := len(of.all) - 1
	of.all[r.place] = of.all[last]
	of.all[r.place].place = r.place
	of.all[last] = nil
	of.all, of.due = of.all[:last], 0
	if last > 0 {
		return
	}
	last = len(x.running) - 1
	x.running[of.place] = x.running[last]
	x.running[of.place].roster.place = of.place
	x.running[last] = nil
	x.running = x.running[:last]
}

// outdate marks what is known of a run as old.
func (r *run) outdate() { r.due, r.roster.due = 0, 0 }

// survey finds out how a roster stands.
func (x *Index) survey(of *roster, changed bool) {
	all, now := of.all, x.now
	for _, r := range all {
		if now >= r.due || r.passed && changed {
			x.renew(r)
		}
	}
	due, passed, out := cluster.Time(math.MaxInt64), false, 0
	lowest, worst := int32(math.MaxInt32), standing{key: math.MinInt64}
	for _, r := range all {
		due, passed = min(due, r.due), passed || r.passed
		if r.out {
			out++
			continue
		}
		lowest = min(lowest, r.priority)
		worst.key, worst.level = max(worst.key, r.key), max(worst.level, int64(r.level))
	}
	*of = roster{all: all, place: of.place, due: due, passed: passed, some: out < len(all), lowest: lowest, worst: worst}
}

// renew finds out anew what is known of a run from one market to the next.
func (x *Index) renew(r *run) {
	j, p := r.job, &x.policy.Preemption
	r.priority, r.firm, r.stopping = j.Spec.Priority, !j.Spec.Preemptible, j.State == cluster.Stopping
	r.shrink = j.Spec.Elastic() && j.Held() > j.Spec.MinGPUs
	r.young, r.passed, r.gone = false, false, r.stopping
	if r.out = r.firm || r.stopping; r.out { // as long as the state has this version of it
		r.key, r.level, r.parts, r.due = 0, 0, -1, math.MaxInt64
		return
	}
	var at standing
	at, r.due, r.passed = x.standsUntil(j)
	r.key, r.level, r.parts = at.key, int16(at.level), x.partsOf(j, at.level) //nolint:gosec // some 128 at most
	if ripe := j.StartedAt.Add(p.MinRuntime); x.now < ripe {
		r.young, r.out, r.parts, r.due = true, true, -1, min(r.due, ripe)
	}
}

// partsOf is the level of a running job in parts, less what former stops make up for, or -1 if it may not be stopped by
// the order alone.
func (x *Index) partsOf(j *cluster.Job, level int64) int16 {
	if j.Preemptions >= x.policy.Preemption.MaxPerJob || level >= cluster.Levels { // the latter in another order: nobody asks for it
		return -1
	}
	return int16(max(levelParts*level-int64(j.Preemptions), -1)) //nolint:gosec // below levelParts * cluster.Levels
}
