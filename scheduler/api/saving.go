package api

import (
	"math"
	"time"

	"github.com/gangline/gangline/checkpoint"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

func savingFromProto(p *schedulerv1.CheckpointPolicy) *cluster.CheckpointPolicy {
	if p == nil {
		return nil
	}
	s := &cluster.CheckpointPolicy{
		Interval: millis(p.GetIntervalMs()), Steps: p.GetIntervalSteps(), Auto: p.GetIntervalAuto(), KeepEvery: p.GetKeepEvery(), PushNth: p.GetPushNth(),
	}
	for _, b := range p.GetKeepBest() {
		s.KeepBest = append(s.KeepBest, cluster.KeepBest{Metric: b.GetMetric(), Lowest: b.GetLowest(), Count: b.GetCount()})
	}
	return s
}

func savingToProto(s *cluster.CheckpointPolicy) *schedulerv1.CheckpointPolicy {
	if s == nil {
		return nil
	}
	p := &schedulerv1.CheckpointPolicy{
		IntervalMs: s.Interval.Milliseconds(), IntervalSteps: s.Steps, IntervalAuto: s.Auto, KeepEvery: s.KeepEvery, PushNth: s.PushNth,
	}
	for _, b := range s.KeepBest {
		p.KeepBest = append(p.KeepBest, &schedulerv1.KeepBest{Metric: b.Metric, Lowest: b.Lowest, Count: b.Count})
	}
	return p
}

// savingFor is what an agent must know of when the job saves; nil: the program decides.
func savingFor(in *control.Assignment) *agentv1.CheckpointPolicy {
	s := in.Job.Spec.Checkpoints
	if s == nil {
		return nil
	}
	p := &agentv1.CheckpointPolicy{
		IntervalMs: s.Interval.Milliseconds(), IntervalSteps: s.Steps, IntervalAuto: s.Auto, KeepEvery: s.KeepEvery, PushNth: s.PushNth,
	}
	for _, b := range s.KeepBest {
		p.KeepBest = append(p.KeepBest, &agentv1.KeepBest{Metric: b.Metric, Lowest: b.Lowest, Count: b.Count})
	}
	if s.Auto {
		p.BetweenFailuresMs = coarse(betweenFailures(in)).Milliseconds()
	}
	if in.Resume != nil {
		p.CostMs = in.Resume.Cost.Milliseconds()
	}
	return p
}

// betweenFailures is how long a gang runs on average until a failure stops it: its nodes fail as they have shown, and the
// program as it has shown in this job.
func betweenFailures(in *control.Assignment) time.Duration {
	gpus := float64(in.Job.Held()) * float64(in.Job.Spec.Share()) / cluster.WholeGPU
	perHour := checkpoint.FailuresPerGPUHour(seen(in.All), seen(in.Gang)) * gpus
	if own := float64(in.Job.Failures); own > 0 && gpus > 0 {
		ran := float64(in.Job.Attained) / cluster.WholeGPU / gpus / float64(time.Hour/time.Millisecond)
		perHour += own / max(ran, 1.0/60)
	}
	if hours := 1 / perHour; hours < float64(math.MaxInt64/int64(time.Hour)) {
		return time.Duration(hours * float64(time.Hour))
	}
	return math.MaxInt64
}

func seen(e cluster.Experience) checkpoint.Experience {
	return checkpoint.Experience{GPUHours: float64(e.Used) / cluster.WholeGPU / 3600, Failures: float64(e.Failures)}
}

// coarse rounds to the next lower step of an eighth: an order is sent anew if it differs, and what is known of nodes changes with each end of a job.
func coarse(d time.Duration) time.Duration {
	if d < 8 {
		return d
	}
	step := time.Duration(1)
	for d/step >= 16 {
		step *= 2
	}
	return d / step * step
}

// atLeast0 converts milliseconds that must not be negative.
func atLeast0(ms int64) time.Duration { return max(millis(ms), 0) }
