package planner

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestReasonsAreTrue: every job that a first plan leaves waiting gets one
// reason, and plain loops find that it is so.
func TestReasonsAreTrue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawFull(t)
		p := *w.s.Policy()
		p.Backfill.Off = rapid.IntRange(0, 4).Draw(t, "strict") == 0
		p.Backfill.Reserve = int32(rapid.IntRange(0, 2).Draw(t, "reserve"))
		w.apply(&cluster.SetPolicy{Policy: &p, Any: true})
		plan := Make(w.s, w.now, w.cfg)
		said := map[cluster.JobID]string{}
		for _, r := range plan.Reasons {
			for _, id := range r.Jobs {
				if said[id] != "" {
					t.Fatalf("job %d waits because %q and because %q", id, said[id], r.Text)
				}
				said[id] = r.Text
			}
		}
		w.enact(&plan)
		n := &naive{s: w.s, x: w.x, now: w.now}
		for _, id := range w.ids(cluster.Pending) {
			j := w.s.Job(id)
			if j.NotBefore > w.now || j.Unmet != 0 {
				continue // its reason is the state's
			}
			if text := said[id]; text != "" && text != j.Reason {
				t.Fatalf("job %d says %q, the plan said %q", id, j.Reason, text)
			}
			if why := n.doubts(j); why != "" {
				t.Fatalf("job %d (%s, queue %s) waits because %q: %s", id, j.Spec.Wants(), j.Spec.Queue, j.Reason, why)
			}
		}
	})
}

// doubts says what is wrong with a job's reason, or nothing.
func (n *naive) doubts(j *cluster.Job) string {
	cause := strings.TrimPrefix(j.Reason, "waits for "+j.Spec.Wants())
	is := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(cause, p) {
				return true
			}
		}
		return false
	}
	fits, allowed, free := false, false, false
	for _, t := range n.typesOf(j) {
		if n.left(j, t) < int64(j.Spec.Least())*int64(j.Spec.Share()) {
			continue
		}
		allowed = true
		fits = fits || n.room(j.Spec, t) >= j.Spec.Least()
		free = free || n.free(j.Spec, t) >= j.Spec.Least()
	}
	switch {
	case !strings.HasPrefix(j.Reason, "waits "):
		return "that is not a reason"
	case is("limit of", "may hold at most"):
		if allowed {
			return "no limit is in its way"
		}
	case is("it is not preemptible"):
		if allowed || j.Spec.Preemptible {
			return "it may have so much"
		}
	case is("another member of its array"):
		if !n.arrayFull(j) {
			return "more members may run"
		}
	case is("waits its turn"):
		if !n.s.Policy().Backfill.Off {
			return "backfill is on"
		}
	case is("waits behind", "are kept"):
		if n.s.Policy().Backfill.Reserve == 0 {
			return "nothing is kept"
		}
	case is("too few are free"):
		if free {
			return "enough are free"
		}
	case fits:
		return "it fits"
	}
	return ""
}

// free is how many GPUs of a type have room for one of a job's, wherever.
func (n *naive) free(spec *cluster.JobSpec, gpuType string) int32 {
	k := int32(0)
	n.s.EachNode(func(node *cluster.Node) bool {
		for i := range node.GPUs {
			if node.GPUs[i].Type == gpuType && node.UsableMilli(i) >= spec.Share() {
				k++
			}
		}
		return true
	})
	return k
}
