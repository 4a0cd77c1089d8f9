package planner

import (
	"fmt"

	"github.com/gangline/gangline/scheduler/cluster"
)

// why says why a gang does not fit now.
func (p *pool) why(spec *cluster.JobSpec) string {
	var free, alive, total int32 // of the type with the most, each
	for _, name := range p.allowed(spec) {
		if t := p.byType[name]; t != nil {
			free, alive, total = max(free, t.free), max(alive, t.alive), max(total, t.total)
		}
	}
	want := spec.Wants()
	switch {
	case total == 0:
		return fmt.Sprintf("waits for %s: no node has joined with such GPUs", want)
	case alive < spec.GPUs:
		return fmt.Sprintf("waits for %s: the cluster has %d, but only %d are healthy and on live nodes", want, total, alive)
	case free < spec.GPUs:
		return fmt.Sprintf("waits for %s: the cluster has %d, and too few are free", want, alive)
	case spec.GPUsPerNode > 0:
		return fmt.Sprintf("waits for %s: enough GPUs are free, but too few nodes have %d free GPUs with the CPUs and memory for them", want, spec.GPUsPerNode)
	default:
		return fmt.Sprintf("waits for %s: enough GPUs are free, but not with the CPUs and memory for them", want)
	}
}

// behind says which job is waited for.
func behind(holder *cluster.Job) string {
	return fmt.Sprintf("waits behind job %d (priority %d, %s), which has waited long enough for GPUs to be kept free for it",
		holder.ID, holder.Spec.Priority, holder.Spec.Wants())
}
