package main

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/gangline/gangline/cmd/gangline/internal/calibrate"
)

// TestCalibration: the same jobs on a cluster of processes and in the simulator have average completion times within 5 %.
// What the machine does beside it does not decide: launches and ends cost in the simulator what they were measured to
// cost in this very run, and while the leader was measured not to answer, jobs may have waited for it.
func TestCalibration(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 3, agents: 4, gpus: 4})
	cfg := calibrate.Config{Jobs: 30, Nodes: 4, GPUs: 4, Mean: 2 * time.Second, Load: 1.2, Seed: 2, Dir: t.TempDir()}
	api, done, err := c.client(patience).dial()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	run, err := calibrate.Measure(ctx, api, cfg)
	if errors.Is(err, calibrate.ErrDisturbed) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := calibrate.Compare(cfg, run)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", *r)
	if r.Stalled > r.Real.AvgJCT/3 {
		t.Skipf("the leader did not answer for %.1f s in all: on so busy a machine the times say nothing", r.Stalled)
	}
	costs := r.Decide + r.Launch + r.End // of which the prediction knows averages only
	for _, sim := range []struct {
		name        string
		jct, margin float64
	}{{"replayed", r.Replayed.AvgJCT, r.Stalled}, {"predicted", r.Predicted.AvgJCT, r.Stalled + costs}} {
		if off := math.Abs(sim.jct - r.Real.AvgJCT); off > tolerated*r.Real.AvgJCT+sim.margin {
			t.Errorf("%s: average completion time %.3f s, of the cluster %.3f s; 5 %% and %.3f s allow less", sim.name, sim.jct, r.Real.AvgJCT, sim.margin)
		}
	}
	if r.Real.AvgJCT < 1.2*cfg.Mean.Seconds() {
		t.Errorf("jobs hardly waited (average completion time %.3f s): the comparison says little", r.Real.AvgJCT)
	}
}
