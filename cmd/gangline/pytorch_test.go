package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// needPyTorch gives a Python with PyTorch, and builds the library that it loads; it skips the test where there is none.
func needPyTorch(t *testing.T) string {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import torch").Run(); err != nil {
		t.Skipf("no %s with PyTorch: %v", python, err)
	}
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("no C compiler: the library needs cgo")
	}
	if err := buildLibrary(); err != nil {
		t.Fatal(err)
	}
	return python
}

var buildLibrary = sync.OnceValue(func() error {
	if out, err := exec.Command("make", "-C", "../..", "lib", "CGO_ENABLED=1").CombinedOutput(); err != nil {
		return fmt.Errorf("make lib: %w\n%s", err, out)
	}
	return nil
})

// TestPyTorchExample trains the example as a job, with gradients averaged by us, kills a rank with SIGKILL in the middle, and holds the losses of
// the whole training against those of a job whose gradients Gloo averaged and to which nothing happened.
func TestPyTorchExample(t *testing.T) {
	t.Parallel()
	python := needPyTorch(t)
	example, err := filepath.Abs("../../examples/pytorch_ddp")
	if err != nil {
		t.Fatal(err)
	}
	c := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 4})
	submit := func(name string, more ...string) (id uint64, losses string) {
		losses = filepath.Join(c.dir, name+".losses")
		args := []string{
			"--gpus", "2", "--dir", example, "--retries", "1", "--env", "GLOO_SOCKET_IFNAME=lo", "--env", "PYTHONDONTWRITEBYTECODE=1", "--",
			python, "train.py", "--epochs", "1", "--checkpoint-every", "4", "--losses", losses,
		}
		return c.submit(append(args, more...)...), losses
	}
	quiet, want := submit("gloo", "--average", "gloo")
	killed, got := submit("gangline", "--step-delay", "0.2")
	c.await(killed, "at its second checkpoint", func(j *schedulerv1.Job) bool { return j.GetCheckpoint().GetStep() >= 8 })
	if err := syscall.Kill(c.pythonRanks(killed)[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.awaitState(quiet, "Succeeded")

	job := c.awaitState(killed, "Succeeded")
	if job.GetEpoch() != 2 {
		t.Errorf("the job ended in epoch %d: was it not started again?", job.GetEpoch())
	}
	out := c.must("logs", fmt.Sprint(killed))
	if !strings.Contains(out, "resumed from step ") {
		t.Errorf("the second start did not resume:\n%s", out)
	}
	a, b := lossesOf(t, want), lossesOf(t, got)
	if len(a) != 22 || len(b) != 22 {
		t.Fatalf("there are losses of %d and %d steps, want 22 each", len(a), len(b))
	}
	for step, loss := range a {
		if math.Abs(loss-b[step]) > 1e-5 {
			t.Errorf("step %d: the loss is %v with Gloo and %v with us", step, loss, b[step])
		}
	}
}

// pythonRanks finds the processes of a job's workers that run Python, by rank. Tests beside this one have jobs of the same numbers.
func (c *testCluster) pythonRanks(job uint64) map[int]int {
	c.t.Helper()
	interpreter, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		c.t.Fatal(err)
	}
	return ranksOf(interpreter, job, c.dir)
}

// lossesOf reads the losses by step; a step that was repeated counts as it was the last time.
func lossesOf(t *testing.T, path string) map[int]float64 {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	losses := map[int]float64{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var step int
		var loss float64
		if _, err := fmt.Sscan(lines.Text(), &step, &loss); err != nil {
			t.Fatalf("%s: %q: %v", path, lines.Text(), err)
		}
		losses[step] = loss
	}
	return losses
}
