package planner

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
)

// pendingInOrder returns the pending jobs in the order in which they are
// tried: higher priority first, then the earlier submission, then the lower
// id. A job that was evicted keeps the age of its submission.
func pendingInOrder(s *cluster.State) []*cluster.Job {
	queue := make([]*cluster.Job, 0, s.Count(cluster.Pending))
	s.EachPending(func(j *cluster.Job) bool {
		queue = append(queue, j)
		return true
	})
	slices.SortFunc(queue, Compare)
	return queue
}

// Compare orders jobs as the planner tries them: negative if a comes first.
func Compare(a, b *cluster.Job) int {
	return cmp.Or(
		cmp.Compare(b.Spec.Priority, a.Spec.Priority),
		cmp.Compare(a.SubmittedAt, b.SubmittedAt),
		cmp.Compare(a.ID, b.ID),
	)
}

// shape is what decides whether a job fits: jobs of one shape are refused together.
type shape struct {
	gpus, perNode int32
	cpu, mem      int64
	launch        cluster.LaunchMode
	types         string
}

func shapeOf(spec *cluster.JobSpec) shape {
	return shape{
		gpus: spec.GPUs, perNode: spec.GPUsPerNode, cpu: spec.CPUPerGPU, mem: spec.MemPerGPU,
		launch: spec.Launch, types: strings.Join(spec.GPUTypes, "\x00"),
	}
}

// competes reports whether two jobs could use the same GPUs.
func competes(a, b *cluster.JobSpec) bool {
	if len(a.GPUTypes) == 0 || len(b.GPUTypes) == 0 {
		return true
	}
	return slices.ContainsFunc(a.GPUTypes, func(t string) bool { return slices.Contains(b.GPUTypes, t) })
}
