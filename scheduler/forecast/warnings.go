package forecast

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner"
)

// warnings says what about a job that is not submitted yet may surprise its user.
func warnings(s *cluster.State, now cluster.Time, a *Answer) (out []string) {
	spec := a.Job.Spec
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if unknown := unknownTypes(s, spec); len(unknown) > 0 {
		warn("no node has GPUs of type %s", strings.Join(unknown, " or "))
	}
	hasQuota := slices.ContainsFunc(s.Policy().Queues, func(q cluster.QueuePolicy) bool { return len(q.Quota) > 0 })
	if !spec.Preemptible && hasQuota && s.Policy().Queue(spec.Queue) != nil {
		warn("it is not preemptible, so it runs only within the quota of its queue and never on lent GPUs")
	}
	for i := range s.Policy().Windows {
		w := &s.Policy().Windows[i]
		if now >= w.End || (w.Queue != "" && planner.Below(spec.Queue, w.Queue)) {
			continue
		}
		switch gone := now.Add(spec.TimeLimit + spec.Warn + spec.Grace); {
		case spec.TimeLimit == 0 && now < w.Start:
			warn("without a time limit it may not use nodes of reservation %s, which begins in %s, unless jobs like it are known to be short", w.Name, Brief(w.Start.Sub(now)))
		case now < w.Start && gone > w.Start:
			warn("its time limit reaches into reservation %s, which begins in %s: it may not use those nodes", w.Name, Brief(w.Start.Sub(now)))
		}
	}
	if t := &spec.Topology; t.Level != "" && !t.Required && a.Fit != nil {
		if n := domains(s, t.Level, a.Fit); n > 1 {
			warn("it prefers one %s and would be spread over %d now", t.Level, n)
		}
	}
	if i := slices.IndexFunc(spec.GPUTypes, func(t string) bool { _, _, ok := cluster.InstanceOf(t); return ok }); i >= 0 && spec.GPUs > 1 {
		warn("%s is a MIG instance: NCCL does not work between instances, so a gang of several needs other means", spec.GPUTypes[i])
	}
	if n := spec.Array.Count(); n > 1 {
		warn("this is about the first of its %d members; the others wait their turn behind it", n)
	}
	return out
}

// unknownTypes are the types asked for that no node has.
func unknownTypes(s *cluster.State, spec *cluster.JobSpec) []string {
	missing := slices.Clone(spec.GPUTypes)
	s.EachNode(func(n *cluster.Node) bool {
		for i := range n.GPUs {
			if t := n.GPUs[i].Type; i == 0 || t != n.GPUs[i-1].Type {
				missing = slices.DeleteFunc(missing, func(m string) bool { return m == t })
			}
		}
		return len(missing) > 0
	})
	return missing
}

// domains is over how many domains of a level a job would be spread.
func domains(s *cluster.State, level string, fit *planner.Fit) int {
	var names []string
	for _, n := range fit.Nodes {
		if node := s.Node(n.Node); node != nil {
			names = append(names, s.Policy().Domain(node, level))
		}
	}
	slices.Sort(names)
	return len(slices.Compact(names))
}
