package model

import (
	"testing"
	"time"

	"github.com/gangline/gangline/sim/trace"
)

func jobAt(submit, length time.Duration, gpus int32) trace.Job {
	return trace.Job{Submit: submit * time.Second, Length: length * time.Second, GPUs: gpus}
}

// TestRemaining: the shorter job goes first, the longer one stops for it and pays; a gang waits for whole nodes.
func TestRemaining(t *testing.T) {
	t.Parallel()
	cfg := Config{Nodes: 2, PerNode: 8, Restart: 30, Tick: 600}
	got := Run(cfg, []trace.Job{jobAt(0, 1000, 16), jobAt(100, 50, 1)})
	// The first runs 0..100, loses both nodes to nobody but one GPU, and again from 150 on: 30 s lost, 900 s left.
	if want := (Result{Avg: (1080 + 50) / 2., P50: 1080, P99: 1080, Wait: 40, Stops: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got = Run(cfg, []trace.Job{jobAt(0, 100, 8), jobAt(0, 100, 8), jobAt(0, 60, 4)})
	if want := (Result{Avg: (100 + 60 + 160) / 3., P50: 100, P99: 160, Wait: 20}); !near(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func near(a, b Result) bool {
	const little = 1e-6
	return abs(a.Avg-b.Avg) < little && abs(a.Wait-b.Wait) < little && a.P50 == b.P50 && a.P99 == b.P99 && a.Stops == b.Stops
}

func abs(x float64) float64 { return max(x, -x) }

// TestGittins: a job that has outlived those that end early is put behind a new one, which may be one of them; where all
// are equally long it goes on to its end.
func TestGittins(t *testing.T) {
	t.Parallel()
	var mixed, same []trace.Job
	for range 50 {
		mixed = append(mixed, jobAt(0, 20, 8), jobAt(0, 100_000, 8))
		same = append(same, jobAt(0, 5000, 8))
	}
	if l := livesOf(mixed)[8]; l.gittins(0) >= l.gittins(1000) {
		t.Errorf("a new job has %g, one that will be long %g: the new one should be first", l.gittins(0), l.gittins(1000))
	}
	if l := livesOf(same)[8]; l.gittins(0) <= l.gittins(4000) {
		t.Errorf("a new job has %g, one that is nearly over %g: that one should be first", l.gittins(0), l.gittins(4000))
	}
}
