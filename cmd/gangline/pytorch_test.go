package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestPyTorchExample trains the example as a job, with gradients averaged by us, kills a rank with SIGKILL in the middle, and holds the losses of
// the whole training against those of a job whose gradients Gloo averaged and to which nothing happened.
func TestPyTorchExample(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import torch").Run(); err != nil {
		t.Skipf("no %s with PyTorch: %v", python, err)
	}
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("no C compiler: the library needs cgo")
	}
	if out, err := exec.Command("make", "-C", "../..", "lib", "CGO_ENABLED=1").CombinedOutput(); err != nil {
		t.Fatalf("make lib: %v\n%s", err, out)
	}
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
	poll(t, "the second checkpoint is committed", func() bool { return c.job(killed).GetCheckpoint().GetStep() >= 8 })
	c.killRank(t, got, 1)
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

// killRank kills the process of a rank whose command line names a file.
func (c *testCluster) killRank(t *testing.T, file string, rank int) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range commands {
		command, _ := os.ReadFile(path) // it may have ended
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		args := strings.Split(string(command), "\x00")
		if !slices.Contains(args, file) || !strings.Contains(args[0], "python") || !bytes.Contains(env, fmt.Appendf(nil, "\x00RANK=%d\x00", rank)) {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(filepath.Base(filepath.Dir(path)), &pid); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no process of rank %d with %s", rank, file)
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
