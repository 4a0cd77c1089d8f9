package sim

import (
	"fmt"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
)

// checkBounds says whether a job that has just started is within what the policy lets its queue, its user and its
// array hold. Apply knows nothing of these: the planner alone keeps them.
func checkBounds(s *cluster.State, j *cluster.Job) error {
	p := s.Policy()
	all, mine, typed, members := map[string]int64{}, map[string]int64{}, map[string]int64{}, int32(0)
	gpuType := s.HeldType(j)
	s.EachHolding(func(o *cluster.Job) bool {
		milli := int64(o.Held()) * int64(o.Spec.Share())
		if o.Array == j.Array && j.Array != 0 {
			members++
		}
		for path := o.Spec.Queue; path != ""; path = cluster.ParentQueue(path) {
			all[path] += milli
			if o.User == j.User {
				mine[path] += milli
			}
			if s.HeldType(o) == gpuType {
				typed[path] += milli
			}
		}
		return true
	})
	var errs []string
	over := func(what, path string, held, limit int64) {
		if held > limit*cluster.WholeGPU {
			errs = append(errs, fmt.Sprintf("queue %s holds %d milli-GPUs, its %s is %d GPUs", path, held, what, limit))
		}
	}
	for path := j.Spec.Queue; path != ""; path = cluster.ParentQueue(path) {
		q := p.Queue(path)
		if q == nil {
			continue
		}
		if l, ok := cluster.CountOf(q.Limit, ""); ok {
			over("limit", path, all[path], l)
		}
		if l, ok := cluster.CountOf(q.Limit, gpuType); ok {
			over("limit of type "+gpuType, path, typed[path], l)
		}
		if q.UserLimit > 0 {
			over("limit of user "+j.User, path, mine[path], q.UserLimit)
		}
	}
	if most := j.Spec.Array.Parallel; most > 0 && members > most {
		errs = append(errs, fmt.Sprintf("%d members of its array hold GPUs, at most %d may", members, most))
	}
	if len(errs) > 0 {
		return fmt.Errorf("job %d has started: %s", j.ID, strings.Join(errs, "; "))
	}
	return nil
}
