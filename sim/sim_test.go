package sim

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// small is a world that runs in some tens of milliseconds and still meets every fault, several at once.
func small(seed uint64) Config {
	cfg := DefaultConfig()
	cfg.Seed, cfg.Nodes, cfg.GPUsPerNode, cfg.Jobs = seed, 5, 4, 30
	cfg.Horizon, cfg.CheckEvery, cfg.Varied = 90*time.Minute, 1, seed%3 > 0 // the others are the plain worlds
	r := &cfg.Rates
	r.NodeFailures, r.Partitions, r.AgentRestarts, r.SupervisorsLost, r.LeaderChanges = 0.8, 1.5, 1, 0.5, 6
	r.Drains, r.PolicyChanges = 1, 3
	switch seed % 4 {
	case 0: // histories that are cut short
		cfg.Control.KeepFinal = 3
		cfg.Control.ForgetLostNodes = 2 * time.Minute
	case 1: // more work than GPUs, and bad lines
		cfg.Load = 1.5
		r.ReportLost, r.ReportRepeated, r.OrderRepeated = 0.3, 0.3, 0.3
	case 2: // a storm
		r.NodeFailures, r.Partitions, r.LeaderChanges = 3, 5, 20
	}
	return cfg
}

func text(t *testing.T, r Report) string {
	t.Helper()
	var buf bytes.Buffer
	if err := r.WriteJSON(&buf, 0); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteText(&buf, 0); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// TestSeeds runs many small worlds with every kind of fault, and makes sure that each kind did strike.
func TestSeeds(t *testing.T) {
	t.Parallel()
	seeds := uint64(200)
	if testing.Short() || raceEnabled {
		seeds = 20
	}
	var sum FaultCounts
	restores, retries, requeues, preemptions := 0, 0, 0, 0
	for seed := uint64(1); seed <= seeds; seed++ {
		r, err := Run(small(seed))
		if err != nil {
			t.Fatal(err)
		}
		if r.Finished+r.Refused != r.Jobs {
			t.Fatalf("seed %d: %d jobs finished and %d refused of %d", seed, r.Finished, r.Refused, r.Jobs)
		}
		sum.NodeFailures += r.Faults.NodeFailures
		sum.Reimaged += r.Faults.Reimaged
		sum.AgentRestarts += r.Faults.AgentRestarts
		sum.Partitions += r.Faults.Partitions
		sum.SupervisorsLost += r.Faults.SupervisorsLost
		sum.LeaderChanges += r.Faults.LeaderChanges
		sum.WorkerFailures += r.Faults.WorkerFailures
		sum.ReportsLost += r.Faults.ReportsLost
		sum.ReportsRepeated += r.Faults.ReportsRepeated
		sum.OrdersRepeated += r.Faults.OrdersRepeated
		sum.SubmitsRepeated += r.Faults.SubmitsRepeated
		sum.SubmitsRetried += r.Faults.SubmitsRetried
		sum.Cancels += r.Faults.Cancels
		restores, retries, requeues, preemptions = restores+r.Restores, retries+r.Retries, requeues+r.Requeues, preemptions+r.Preemptions
	}
	t.Logf("%+v, %d restores, %d retries, %d requeues, %d preemptions", sum, restores, retries, requeues, preemptions)
	if seeds < 200 {
		return // too few for the rarest kind to strike for certain
	}
	for _, n := range []int{
		sum.NodeFailures, sum.Reimaged, sum.AgentRestarts, sum.Partitions, sum.SupervisorsLost, sum.LeaderChanges, sum.WorkerFailures,
		sum.ReportsLost, sum.ReportsRepeated, sum.OrdersRepeated, sum.SubmitsRepeated, sum.SubmitsRetried, sum.Cancels, restores, retries, requeues, preemptions,
	} {
		if n == 0 {
			t.Errorf("a kind of fault or check never happened: %+v, %d restores, %d retries, %d requeues", sum, restores, retries, requeues)
		}
	}
}

// TestSameBytes: equal configs give equal reports, whatever runs beside them.
func TestSameBytes(t *testing.T) { //nolint:paralleltest // it sets GOMAXPROCS
	var first string
	for _, procs := range []int{1, 2, 7} {
		before := runtime.GOMAXPROCS(procs)
		reports := make([]string, 3)
		done := make(chan int)
		for i := range reports {
			go func() {
				defer func() { done <- i }()
				r, err := Run(small(6))
				if err == nil {
					reports[i] = text(t, r)
				}
			}()
		}
		for range reports {
			<-done
		}
		runtime.GOMAXPROCS(before)
		for _, got := range reports {
			if first == "" {
				first = got
			}
			if got == "" || got != first {
				t.Fatalf("GOMAXPROCS %d: got\n%s\nwant\n%s", procs, got, first)
			}
		}
	}
	other, err := Run(small(10))
	if err != nil || text(t, other) == first {
		t.Fatalf("another seed gives the same report (err %v)", err)
	}
}

// TestNoFaults: without faults every job that fits succeeds at its first try, unless its own time limit ends it.
func TestNoFaults(t *testing.T) {
	t.Parallel()
	cfg := small(3)
	cfg.Faults = false
	r, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Requeues != 0 || r.LostGPU != 0 && r.Retries == 0 || r.Succeeded < r.Jobs*8/10 || r.Faults != (FaultCounts{}) {
		t.Errorf("a calm run is not calm: %+v", r)
	}
	if r.GPUGoodput <= 0 || r.GPUGoodput > r.GPUAllocation || r.GPUAllocation > 1 || r.P50JCT > r.P90JCT || r.P90JCT > r.P99JCT {
		t.Errorf("the measures do not agree: %+v", r)
	}
}

// TestConfig: what cannot be run is refused, all problems at once.
func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := Run(Config{Nodes: -1, Load: 1})
	for _, want := range []string{"nodes: -1", "gpus-per-node: 0", "servers: 0", "horizon: 0s"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

// BenchmarkRun measures a cluster of 64 GPUs without faults and without sampling its state more often than it must.
func BenchmarkRun(b *testing.B) {
	for _, faults := range []bool{false, true} {
		b.Run(fmt.Sprintf("faults=%t", faults), func(b *testing.B) {
			cfg := DefaultConfig()
			cfg.Jobs, cfg.Horizon, cfg.Faults, cfg.CheckEvery = 1000, 20*time.Hour, faults, 1000
			events, jobs := uint64(0), 0
			for b.Loop() {
				cfg.Seed++
				r, err := Run(cfg)
				if err != nil {
					b.Fatal(err)
				}
				events, jobs = events+r.Events, jobs+r.Jobs
			}
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(jobs)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}
