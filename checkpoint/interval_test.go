package checkpoint_test

import (
	"math"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// lost is the share of the time that a job loses, by Daly's model with exponential failures, when it works tau between saves of cost c.
func lost(tau, c, m float64) float64 {
	// Time to get tau of work done and saved: m (e^((tau+c)/m) - 1), restarts at no cost.
	return 1 - tau/(m*(math.Exp((tau+c)/m)-1))
}

// TestIntervalLosesTheLeast compares with the best of all intervals by the model itself, from cheap saves to those that cost as much as there is.
func TestIntervalLosesTheLeast(t *testing.T) {
	t.Parallel()
	const m = 10 * time.Hour
	for _, cost := range []time.Duration{time.Millisecond, time.Second, time.Minute, 10 * time.Minute, time.Hour, 4 * time.Hour} {
		got := checkpoint.Interval(cost, m, 0).Seconds()
		best := math.Inf(1)
		for tau := 0.1; tau < 4*m.Seconds(); tau *= 1.002 {
			best = min(best, lost(tau, cost.Seconds(), m.Seconds()))
		}
		if is := lost(got, cost.Seconds(), m.Seconds()); is > best*1.01 {
			t.Errorf("a save of %v each %.0f s loses %.5f of the time, the best interval %.5f", cost, got, is, best)
		}
	}
}

func TestIntervalAtTheEdges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ cost, between, least, want time.Duration }{
		{0, time.Hour, time.Minute, time.Minute},
		{-time.Second, time.Hour, time.Minute, time.Minute},
		{time.Second, 0, time.Minute, time.Minute},
		{time.Hour, time.Hour, 0, time.Hour},
		{100 * time.Hour, time.Hour, 0, time.Hour},
		{math.MaxInt64, math.MaxInt64, 0, math.MaxInt64},
	} {
		if got := checkpoint.Interval(c.cost, c.between, c.least); got != c.want {
			t.Errorf("Interval(%v, %v, %v) = %v, want %v", c.cost, c.between, c.least, got, c.want)
		}
	}
	// The source's own figure: 16,384 GPUs, an interruption each 3 hours.
	if got := checkpoint.TimeBetweenFailures(16384, 0); got < 3*time.Hour || got > 3*time.Hour+10*time.Minute {
		t.Errorf("16,384 GPUs fail each %v", got)
	}
	if got := checkpoint.TimeBetweenFailures(8, 800); got != 100*time.Hour {
		t.Errorf("8 GPUs at 800 GPU-hours: %v", got)
	}
	if got := checkpoint.TimeBetweenFailures(0, 1e300); got != math.MaxInt64 {
		t.Errorf("no GPUs, no failures: %v", got)
	}
}

// TestExperienceMovesTheEstimate: from what was published to what was seen, of all and then of these nodes.
func TestExperienceMovesTheEstimate(t *testing.T) {
	t.Parallel()
	none := checkpoint.Experience{}
	published := checkpoint.FailuresPerGPUHour(none, none)
	if hours := 1 / published; math.Abs(hours-checkpoint.GPUHoursPerFailure) > 1 {
		t.Errorf("of a new cluster: a failure in %.0f GPU-hours", hours)
	}
	steady := checkpoint.FailuresPerGPUHour(checkpoint.Experience{GPUHours: 1e9, Failures: 1e4}, none)
	if math.Abs(steady*1e5-1) > 0.01 {
		t.Errorf("10,000 failures in 10^9 GPU-hours: %g an hour", steady)
	}
	bad := checkpoint.FailuresPerGPUHour(checkpoint.Experience{GPUHours: 1e9, Failures: 1e4}, checkpoint.Experience{GPUHours: 1000, Failures: 9})
	good := checkpoint.FailuresPerGPUHour(checkpoint.Experience{GPUHours: 1e9, Failures: 1e4}, checkpoint.Experience{GPUHours: 1e6})
	if math.Abs(bad/1e-4-1) > 0.02 || good > steady/10 {
		t.Errorf("nodes that failed often: %g, that never did: %g, as all do: %g", bad, good, steady)
	}
}
