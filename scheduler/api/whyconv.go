package api

import (
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/forecast"
	"github.com/gangline/gangline/scheduler/planner"
)

// prospectsToProto converts what a job has to expect; nil if it does not wait.
func prospectsToProto(s *cluster.State, a *forecast.Answer) *schedulerv1.Prospects {
	if !a.Waits {
		return nil
	}
	p := &schedulerv1.Prospects{
		NowUnixNs: int64(a.Now), Summary: a.Summary(), Constraint: constraintToProto(&a.Why, a.Now),
		Place: clampCount(a.Place), Waiting: clampCount(a.Of), About: a.About,
		Fit: fitToProto(s, a.Fit), Victims: victimsToProto(a.Stops), Start: estimateToProto(&a.Start, a.Now),
		SetbackMs: a.Setback.Milliseconds(),
	}
	for i := range a.Changes {
		c := &a.Changes[i]
		p.Alternatives = append(p.Alternatives, &schedulerv1.Alternative{
			Change: c.What, Fit: fitToProto(s, c.Fit), StartUnixNs: int64(c.At(a.Now)), Victims: victimsToProto(c.Stops), Text: c.When(a.Now),
		})
	}
	return p
}

func constraintToProto(ex *planner.Explanation, now cluster.Time) *schedulerv1.Constraint {
	c := &schedulerv1.Constraint{
		Kind: ex.Binding.String(), Text: ex.Text, GpuType: ex.GPUType, Queue: ex.Queue, Level: ex.Level, Domain: ex.Domain,
		Behind: uint64(ex.Behind), LacksGpus: wholeGPUs(ex.Lacks),
		FromUnixNs: int64(ex.From), UntilUnixNs: int64(ex.Until), ClearUnixNs: int64(ex.Clear),
	}
	for i := range ex.Holders {
		h := &ex.Holders[i]
		c.Holders = append(c.Holders, &schedulerv1.Holder{
			Job: uint64(h.Job), User: h.User, Queue: h.Queue, Gpus: wholeGPUs(h.Milli), UntilUnixNs: int64(h.Until), TimeLimit: h.Limit,
			Text: forecast.HolderText(h, ex.GPUType, now),
		})
	}
	return c
}

func fitToProto(s *cluster.State, fit *planner.Fit) *schedulerv1.Fit {
	if fit == nil {
		return nil
	}
	p := &schedulerv1.Fit{GpuType: fit.GPUType}
	for _, n := range fit.Nodes {
		name := string(n.Node)
		if node := s.Node(n.Node); node != nil {
			name = node.Name
		}
		p.Nodes = append(p.Nodes, &schedulerv1.FitNode{Node: name, Gpus: n.GPUs})
	}
	return p
}

func victimsToProto(stops []planner.Evict) []*schedulerv1.Victim {
	var out []*schedulerv1.Victim
	for i := range stops {
		e := &stops[i]
		out = append(out, &schedulerv1.Victim{Job: uint64(e.Job), Reason: e.Reason, LostGpuSeconds: forecast.GPUHours(e.Cost) * 3600})
	}
	return out
}

func estimateToProto(e *forecast.Estimate, now cluster.Time) *schedulerv1.StartEstimate {
	return &schedulerv1.StartEstimate{
		Basis: schedulerv1.EstimateBasis(e.Basis), Runs: clampCount(e.Runs), P50UnixNs: int64(e.P50), P90UnixNs: int64(e.P90),
		UntilUnixNs: int64(e.Until), Stuck: e.Stuck, PaceUnixNs: int64(e.Pace), Text: e.Text(now),
	}
}
