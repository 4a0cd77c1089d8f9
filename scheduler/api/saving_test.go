package api

import (
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// TestBetweenFailures: a new cluster fails as published, nodes that failed and a program that fails of itself make it shorter.
func TestBetweenFailures(t *testing.T) {
	t.Parallel()
	job := func(gpus int, failures int32) *cluster.Job {
		j := &cluster.Job{Spec: &cluster.JobSpec{GPUs: int32(gpus)}, Workers: make([]cluster.Worker, gpus), Failures: failures}
		for i := range j.Workers {
			j.Workers[i].GPUs = []string{"x"}
		}
		j.Attained = int64(gpus) * cluster.WholeGPU * (100 * time.Hour).Milliseconds()
		return j
	}
	const used = 50 * 3600 * cluster.WholeGPU // 50 GPU-hours
	for _, c := range []struct {
		name        string
		in          control.Assignment
		least, most time.Duration
	}{
		{"nothing is known of 8 GPUs", control.Assignment{Job: job(8, 0)}, 6300 * time.Hour, 6400 * time.Hour},
		{"16 of them", control.Assignment{Job: job(16, 0)}, 3100 * time.Hour, 3200 * time.Hour},
		{"nodes that failed 9 times", control.Assignment{Job: job(8, 0), All: cluster.Experience{Used: used, Failures: 9}, Gang: cluster.Experience{Used: used, Failures: 9}}, 60 * time.Hour, 70 * time.Hour},
		{"others that did", control.Assignment{Job: job(8, 0), All: cluster.Experience{Used: used, Failures: 9}}, 600 * time.Hour, 700 * time.Hour},
		{"a program that failed twice in 100 hours", control.Assignment{Job: job(8, 2)}, 49 * time.Hour, 50 * time.Hour},
	} {
		if got := betweenFailures(&c.in); got < c.least || got > c.most {
			t.Errorf("%s: a failure each %v, want %v to %v", c.name, got, c.least, c.most)
		}
	}
}

func TestCoarse(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{0, 1, 7, 8, 17, 1000, time.Hour, 6334 * time.Hour} {
		if got := coarse(d); got > d || d-got > d/8 || coarse(got) != got {
			t.Errorf("coarse(%d) = %d", d, got)
		}
	}
	if coarse(100*time.Hour) != coarse(101*time.Hour) {
		t.Error("a percent more is told anew")
	}
}

// TestSavingFor: an agent is told the policy, and what auto needs.
func TestSavingFor(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 4)
	id := m.submit(func(s *cluster.JobSpec) {
		s.KeepCkpts, s.Checkpoints = 2, &cluster.CheckpointPolicy{Auto: true, KeepEvery: 7, KeepBest: []cluster.KeepBest{{Metric: "l", Lowest: true, Count: 1}}, PushNth: 3}
	})
	m.start(id, "a:2", "a:3")
	m.apply(&cluster.RecordCheckpoint{Job: id, Epoch: 1, Step: 10, Path: "/10", Cost: 2 * time.Second})
	got := desiredFor(m.State(), "a", nil, noPeers, 7).GetAssignments()[0].GetCheckpoints()
	if !got.GetIntervalAuto() || got.GetKeepEvery() != 7 || got.GetKeepBest()[0].GetMetric() != "l" || !got.GetKeepBest()[0].GetLowest() || got.GetPushNth() != 3 ||
		got.GetCostMs() != 2000 || got.GetBetweenFailuresMs() < (20_000*time.Hour).Milliseconds() {
		t.Errorf("told %v", got)
	}
}
