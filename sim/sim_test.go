package sim

import (
	"bytes"
	"testing"
	"time"
)

// small is a world that runs in a few milliseconds and still meets every fault.
func small(seed uint64) Config {
	cfg := DefaultConfig()
	cfg.Seed, cfg.Nodes, cfg.GPUsPerNode, cfg.Jobs = seed, 5, 4, 30
	cfg.Horizon, cfg.CheckEvery = 90*time.Minute, 1
	cfg.Rates.NodeFailures, cfg.Rates.Partitions, cfg.Rates.AgentRestarts = 0.8, 1.5, 1
	cfg.Rates.SupervisorsLost, cfg.Rates.LeaderChanges = 0.5, 6
	if seed%4 == 0 { // histories that are cut short
		cfg.Control.KeepFinal = 3
		cfg.Control.ForgetLostNodes = 2 * time.Minute
	}
	return cfg
}

func text(t *testing.T, r Report) string {
	t.Helper()
	var buf bytes.Buffer
	if err := r.WriteJSON(&buf, 0); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// TestSeeds runs many small worlds with every kind of fault.
func TestSeeds(t *testing.T) {
	t.Parallel()
	seeds := uint64(200)
	for seed := uint64(1); seed <= seeds; seed++ {
		r, err := Run(small(seed))
		if err != nil {
			t.Fatal(err)
		}
		if seed == 1 {
			t.Log(text(t, r))
		}
	}
}
