package whatif

import (
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/forecast"
	"github.com/gangline/gangline/sim/trace"
)

// Coming makes jobs that are yet to come of a workload, with the lengths that it has. A gang that fits on the largest node
// of the cluster is on one node, and a multiple of it on whole nodes, as in replays.
func Coming(src trace.Source, s *cluster.State) func() (forecast.Arrival, error) {
	largest := 0
	s.EachNode(func(n *cluster.Node) bool {
		largest = max(largest, len(n.GPUs))
		return true
	})
	return func() (forecast.Arrival, error) {
		var j trace.Job
		if err := src.Next(&j); err != nil {
			return forecast.Arrival{}, err
		}
		spec := &cluster.JobSpec{
			Name: "coming", Queue: j.Queue, Priority: cluster.DefaultPrio, GPUs: j.GPUs, GPUTypes: j.Types, Launch: cluster.LaunchPerNode,
			CPUPerGPU: j.CPU / int64(j.GPUs), MemPerGPU: j.Mem / int64(j.GPUs), Command: []string{"coming"}, Preemptible: true,
		}
		switch {
		case j.Milli < cluster.WholeGPU:
			spec.GPUMilli = j.Milli
		case largest > 0 && int(j.GPUs) <= largest:
			spec.GPUsPerNode = j.GPUs
		case largest > 0 && int(j.GPUs)%largest == 0:
			spec.GPUsPerNode = int32(largest) //nolint:gosec // at most cluster.MaxNodeGPUs
		}
		return forecast.Arrival{At: j.Submit, User: j.User, Spec: spec, Length: j.Length}, nil
	}
}
