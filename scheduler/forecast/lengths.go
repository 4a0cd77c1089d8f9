package forecast

import (
	"math/bits"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Basis is what an estimate goes by.
type Basis uint8

// Bases of an estimate.
const (
	BasisNone    Basis = 0 // nothing: no job has ended yet, and those that run have no time limit
	BasisLimits  Basis = 1 // time limits alone
	BasisLearned Basis = 2 // what jobs like those that run have needed, and time limits
	BasisExact   Basis = 3 // lengths are known; only the simulator's are
)

// lengths says how much GPU time jobs need in each run.
type lengths struct {
	s       *cluster.State // in which the question was asked
	now     cluster.Time
	exact   func(cluster.JobID) time.Duration
	learned bool
	seen    map[cluster.JobID]*cluster.Survival
}

func newLengths(s *cluster.State, now cluster.Time, exact func(cluster.JobID) time.Duration) *lengths {
	l := &lengths{s: s, now: now, exact: exact, seen: map[cluster.JobID]*cluster.Survival{}}
	_, l.learned = s.Survival(&cluster.JobSpec{GPUs: 1}, "")
	return l
}

// basis is what estimates go by.
func (l *lengths) basis() Basis {
	switch {
	case l.exact != nil:
		return BasisExact
	case l.learned:
		return BasisLearned
	}
	basis := BasisNone
	l.s.EachHolding(func(j *cluster.Job) bool {
		if j.Spec.TimeLimit > 0 {
			basis = BasisLimits
		}
		return basis == BasisNone
	})
	return basis
}

// total is the GPU time that a job will have had when it ends, in
// milli-GPU-milliseconds, in one of the runs; false: it never ends of itself.
func (l *lengths) total(j *cluster.Job, run int) (int64, bool) {
	if l.exact != nil {
		return l.exact(j.ID).Milliseconds() * int64(j.Spec.GPUs) * int64(j.Spec.Share()), true
	}
	if !l.learned {
		return 0, false
	}
	then := l.s.Job(j.ID)
	v := l.seen[j.ID]
	if v == nil {
		seen, _ := l.s.Survival(j.Spec, j.User)
		if v = &seen; then != nil { // else it is of one run alone, and its number another job's in the next
			l.seen[j.ID] = v
		}
	}
	attained := j.Attained
	if then != nil {
		attained = then.AttainedAt(l.now)
	}
	return v.Total(attained, quantile(j.ID, run)), true
}

// quantile is where in the distribution of its length a job lies in a run, more
// than 0 and less than 1. It goes by the run and the job alone: the same job has
// the same luck in all questions, so that answers can be compared and do not
// jump from one moment to the next. The runs of one job are spread evenly (the
// bits of the run's number mirrored, after van der Corput), which needs fewer
// of them than chance would.
func quantile(id cluster.JobID, run int) float64 {
	at := mix(uint64(id)) + uint64(bits.Reverse32(uint32(run)))<<32 //nolint:gosec // few runs
	return (float64(at>>11) + 0.5) / (1 << 53)
}

// mix is the output function of splitmix64 (Steele, Lea, Flood: Fast splittable
// pseudorandom number generators, 2014).
func mix(v uint64) uint64 {
	v += 0x9e3779b97f4a7c15
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}
