package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// digitsBinary builds the example that trains.
func digitsBinary(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "digits")
	build := exec.Command("go", "build", "-o", binary, "github.com/gangline/gangline/examples/digits")
	if text, err := build.CombinedOutput(); err != nil {
		t.Skipf("the example cannot be built here: %v: %s", err, text)
	}
	return binary
}

// ranksOf finds the processes of a job's workers that run a program, by rank; words are in the environment of all of them.
func ranksOf(binary string, job uint64, words ...string) map[int]int {
	found := map[int]int{}
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		dir := filepath.Dir(f)
		env, err := os.ReadFile(f) //nolint:gosec // of the kernel
		exe, _ := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || exe != binary || !bytes.Contains(env, fmt.Appendf(nil, "\x00GANGLINE_JOB_ID=%d\x00", job)) {
			continue
		}
		if slices.ContainsFunc(words, func(word string) bool { return !bytes.Contains(env, []byte(word)) }) {
			continue
		}
		for _, v := range bytes.Split(env, []byte{0}) {
			if name, value, _ := strings.Cut(string(v), "="); name == "RANK" {
				rank, _ := strconv.Atoi(value)
				found[rank], _ = strconv.Atoi(filepath.Base(dir))
			}
		}
	}
	return found
}

// members are the ranks of a job that run.
func members(j *schedulerv1.Job) (ranks []int32) {
	for _, w := range j.GetWorkers() {
		if w.GetState() == schedulerv1.WorkerState_WORKER_STATE_RUNNING {
			ranks = append(ranks, w.GetRank())
		}
	}
	return ranks
}

// TestGangGoesOnWithoutRanks: eight ranks train, two are killed in the middle of it, or one of them only stopped, at once or one after the other; the other six go on in their processes, to the end or
// until two others have joined, and the model is bit by bit that of a training that nothing happened to.
func TestGangGoesOnWithoutRanks(t *testing.T) {
	t.Parallel()
	binary := digitsBinary(t)
	args := []string{binary, "-epochs", "24", "-hidden", "16", "-batch", "64", "-step-delay", "8ms", "-checkpoint-every", "100"}
	whole, err := exec.Command(args[0], args[1:7]...).Output() //nolint:gosec // the example
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(whole)), "\n")
	want := lines[len(lines)-1] // with accuracy and hash of the model
	for _, retries := range []int{0, 2} {
		c := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 8}) // on another round's the stopped rank holds its GPU for a while
		id := c.submit(append([]string{"--gpus", "6..8", "--on-failure", "shrink", "--retries", strconv.Itoa(retries), "--"}, args...)...)
		c.await(id, "is at its first steps", func(j *schedulerv1.Job) bool { return j.GetProgress().GetStep() > 5 })
		before := ranksOf(binary, id, c.dir)
		if len(before) != 8 {
			t.Fatalf("%d ranks of 8 run: %v", len(before), before)
		}
		lose := func(rank int, sig syscall.Signal, formation int32, left int) {
			if err := syscall.Kill(before[rank], sig); err != nil {
				t.Fatal(err)
			}
			c.await(id, "goes on", func(j *schedulerv1.Job) bool { return j.GetFormation() >= formation && len(members(j)) == left })
		}
		if retries == 0 {
			if err := syscall.Kill(before[5], syscall.SIGSTOP); err != nil { // it hangs while another is lost, so that nobody names it
				t.Fatal(err)
			}
			lose(2, syscall.SIGKILL, 3, 6)
		} else {
			lose(2, syscall.SIGKILL, 3, 8)
			was := c.job(id).GetProgress().GetStep()
			c.await(id, "trains on", func(j *schedulerv1.Job) bool { return j.GetProgress().GetStep() > was+10 })
			lose(5, syscall.SIGSTOP, 4, 7) // what takes its place waits until its GPU is free, perhaps longer than the training takes
		}
		alive := ranksOf(binary, id, c.dir)
		for rank, pid := range before {
			if rank != 2 && rank != 5 && alive[rank] != pid {
				t.Errorf("retries %d: rank %d was process %d and is %d: nothing may start again", retries, rank, pid, alive[rank])
			}
		}
		j := c.awaitState(id, "Succeeded")
		if j.GetEpoch() != 1 || int(j.GetFailures()) != retries {
			t.Errorf("retries %d: epoch %d, %d failures", retries, j.GetEpoch(), j.GetFailures())
		}
		logs := c.must("logs", fmt.Sprintf("%d/0", id))
		if !strings.Contains(logs, want) {
			t.Errorf("retries %d: want the line %q of the undisturbed training in\n%s", retries, want, logs)
		}
		if ranks := fmt.Sprintf("training: %d ranks", 6+retries); !strings.Contains(logs, ranks) {
			t.Errorf("retries %d: want %q in\n%s", retries, ranks, logs)
		}
	}
}
