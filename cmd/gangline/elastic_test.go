package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// TestElasticPyTorchExample: of three ranks in Python one is killed; the others go on in their processes, another joins them, and the model is that of
// one rank alone, to rounding.
func TestElasticPyTorchExample(t *testing.T) {
	t.Parallel()
	python := needPyTorch(t)
	example, err := filepath.Abs("../../examples/elastic")
	if err != nil {
		t.Fatal(err)
	}
	c := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 4})
	submit := func(gpus, delay string, more ...string) uint64 {
		args := []string{"--gpus", gpus, "--dir", example, "--env", "PYTHONDONTWRITEBYTECODE=1"}
		return c.submit(append(args, append(more, "--", python, "train.py", "--steps", "120", "--step-delay", delay)...)...)
	}
	alone := submit("1", "0")
	id := submit("2..3", "0.15", "--on-failure", "shrink", "--retries", "1")
	c.await(id, "is at its first steps", func(j *schedulerv1.Job) bool { return j.GetProgress().GetStep() > 5 })
	before := c.pythonRanks(id)
	if len(before) != 3 {
		t.Fatalf("%d ranks of 3 run: %v", len(before), before)
	}
	if err := syscall.Kill(before[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.await(id, "whole again", func(j *schedulerv1.Job) bool { return j.GetFormation() >= 3 && len(members(j)) == 3 })
	if alive := c.pythonRanks(id); alive[0] != before[0] || alive[2] != before[2] {
		t.Errorf("ranks 0 and 2 were processes %v and are %v", before, alive)
	}
	if j := c.awaitState(id, "Succeeded"); j.GetEpoch() != 1 {
		t.Errorf("the job ended in epoch %d: nothing was to start again", j.GetEpoch())
	}
	c.awaitState(alone, "Succeeded")
	logs := c.must("logs", fmt.Sprint(id))
	for _, want := range []string{"rank 1 is lost", "2 ranks: 0, 2\n", "3 ranks: 0, 2, 3\n"} {
		if !strings.Contains(logs, want) {
			t.Errorf("want %q in\n%s", want, logs)
		}
	}
	_, want, _ := strings.Cut(c.must("logs", fmt.Sprint(alone)), "trained: ")
	_, got, _ := strings.Cut(logs, "trained: ")
	var accuracy, other, sum, otherSum float64
	for text, to := range map[string][]any{want: {&accuracy, &sum}, got: {&other, &otherSum}} {
		if _, err := fmt.Sscanf(text, "step 120/120 test accuracy %f sum of the parameters %f", to...); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	}
	if accuracy < 0.9 || accuracy-other > 0.01 || other-accuracy > 0.01 || sum-otherSum > 0.01 || otherSum-sum > 0.01 {
		t.Errorf("alone %s, with losses %s", want, got)
	}
}
