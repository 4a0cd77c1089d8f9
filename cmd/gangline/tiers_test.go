package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// TestALostNodeCostsNoSave: nothing of what a gang saves has reached the shared storage when one of its nodes is lost with its disk; the
// next epoch goes on from the newest save of which each part was on two nodes.
func TestALostNodeCostsNoSave(t *testing.T) {
	t.Parallel()
	m := &massacre{}
	m.testCluster = newTestCluster(t, shape{servers: 1, agents: 3, gpus: 1, local: true, agentArgs: []string{"--checkpoint-drain-rate", "0.001KB"}})
	m.digits = filepath.Join(m.dir, "bin", "digits")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", m.digits, "../../examples/digits").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.id = m.submit("--gpus", "2", "--gpus-per-node", "1", "--checkpoint", "interval=200 steps", "--", m.digits, "-step-delay", "20ms", "-hidden", "16", "-epochs", "100000")
	j := m.await(m.id, "a local checkpoint with copies", func(j *schedulerv1.Job) bool { return j.GetLocalCheckpoint().GetCopied() })
	if j.GetCheckpoint() != nil {
		t.Fatalf("%v is on the shared storage: the test does not test", j.GetCheckpoint())
	}
	copied, lost := j.GetLocalCheckpoint().GetStep(), m.agents[0]
	for _, a := range m.agents {
		if on, _ := filepath.Glob(filepath.Join(a.dir, "workers", fmt.Sprintf("%d-1-1", m.id))); len(on) > 0 {
			lost = a // of rank 1
		}
	}
	poll(t, "a node is dead", func() bool {
		pids := processesOf(lost.dir)
		for _, pid := range append(pids, lost.cmd.Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		return len(pids) == 0
	})
	if err := os.RemoveAll(filepath.Join(m.dir, lost.name+"-disk")); err != nil {
		t.Fatal(err)
	}
	began := int64(-1)
	m.await(m.id, "the next epoch trains", func(*schedulerv1.Job) bool {
		line := trainingLine.FindStringSubmatch(m.printed(t, 2))
		if line != nil {
			began, _ = strconv.ParseInt(line[1], 10, 64)
		}
		return line != nil
	})
	if began < copied {
		t.Errorf("epoch 2 began at step %d, though step %d was on two nodes", began, copied)
	}
	dir := filepath.Join(m.dir, "checkpoints", fmt.Sprintf("job-%d", m.id))
	if refs, err := openJob(t, dir, fmt.Sprintf("job-%d", m.id)).List(t.Context()); err != nil || len(refs) == 0 || refs[len(refs)-1] != (checkpoint.Ref{Epoch: 1, Step: uint64(began)}) {
		t.Errorf("on the shared storage: %v, %v", refs, err)
	}
	m.must("cancel", strconv.FormatUint(m.id, 10))
}

// TestAnyFrameworkNear runs the example, which saves files of its own, on a node that has a disk for them: it commits there, is killed, goes on from there, and
// its last checkpoint is on the shared storage when its success is told.
func TestAnyFrameworkNear(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 1, local: true})
	script, err := filepath.Abs("../../examples/anyframework/train.sh")
	if err != nil {
		t.Fatal(err)
	}
	id := c.submit("--gpus", "1", "--retries", "1", "--env", "CRASH_AT=7", "--env", "STEP_SECONDS=0.01", "--env", "PATH="+filepath.Dir(c.binary)+":/usr/bin:/bin", "--", "sh", script, "12")
	j := c.awaitState(id, "Succeeded")
	if j.GetCheckpoint().GetStep() != 10 || j.GetLocalCheckpoint() != nil {
		t.Errorf("its end is told with %v, local %v", j.GetCheckpoint(), j.GetLocalCheckpoint())
	}
	out := c.must("logs", strconv.FormatUint(id, 10))
	if !strings.Contains(out, "resumed from step 5") || !strings.Contains(out, "done: sum 78") {
		t.Errorf("it printed %q", out)
	}
	job := fmt.Sprintf("job-%d", id)
	shared := openJob(t, filepath.Join(c.dir, "checkpoints", job), job)
	m, skipped, err := shared.Latest(t.Context())
	if err != nil || len(skipped) > 0 || m.Ref() != (checkpoint.Ref{Epoch: 2, Step: 10}) || m.Metrics["sum"] != 55 {
		t.Errorf("on the shared storage: %v, %v, %v, skipped %v", m.Ref(), m.Metrics, err, skipped)
	}
	near := filepath.Join(c.dir, c.agents[0].name+"-disk", "files", job, m.Dir, "MANIFEST.json")
	if _, err := os.Stat(near); err != nil {
		t.Errorf("not on the node's own disk: %v", err)
	}
}

// saveParts saves two steps with a rank on each of two nodes: the first is committed by one process, the second by each. In the next epoch it prints what it began from.
const saveParts = `cd "$GANGLINE_CHECKPOINT_FILES_DIR"; echo "at $PWD"
if test -n "$GANGLINE_RESUME_FROM"; then cat "$GANGLINE_RESUME_FROM"/ranks/0 "$GANGLINE_RESUME_FROM"/ranks/1; exit 0; fi
meet() { : >$MEET/$1-$RANK; while ! test -e $MEET/$1-$((1-RANK)); do sleep 0.05; done; }
save() { mkdir -p tmp-$1/ranks; echo "step $1 of rank $RANK" >tmp-$1/ranks/$RANK; echo same >tmp-$1/config.json; meet $1; }
save 1; if test $RANK = 0; then gangline checkpoint commit --step 1 --metric loss=0.5 tmp-1 || exit 3; fi
save 2; gangline checkpoint commit --step 2 "$PWD/tmp-2" || exit 4
meet end; exit 1`

// TestFilesOfTwoNodes: programs on two nodes write files on their nodes' own disks; the command makes one checkpoint of them, from which the next epoch goes on.
func TestFilesOfTwoNodes(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1, agents: 2, gpus: 1, local: true})
	meet := filepath.Join(c.dir, "meet")
	if err := os.Mkdir(meet, 0o700); err != nil {
		t.Fatal(err)
	}
	id := c.submit("--gpus", "2", "--gpus-per-node", "1", "--retries", "1", "--checkpoint", "local=all", "--env", "MEET="+meet,
		"--env", "PATH="+filepath.Dir(c.binary)+":/usr/bin:/bin", "--", "sh", "-c", saveParts)
	c.awaitState(id, "Succeeded")
	for _, rank := range []string{"0", "1"} {
		out := c.must("logs", fmt.Sprintf("%d/%s", id, rank))
		if !strings.Contains(out, "-disk/files/job-") || !strings.Contains(out, "step 2 of rank 0") || !strings.Contains(out, "step 2 of rank 1") {
			t.Errorf("rank %s printed %q", rank, out)
		}
	}
	job := fmt.Sprintf("job-%d", id)
	dir := filepath.Join(c.dir, "checkpoints", job)
	m, skipped, err := openJob(t, dir, job).Latest(t.Context())
	if err != nil || len(skipped) > 0 || m.Ref() != (checkpoint.Ref{Epoch: 1, Step: 2}) || len(m.Files) != 3 {
		t.Errorf("on the shared storage: %+v, %v, skipped %v", m, err, skipped)
	}
	if m, err := openJob(t, dir, job).Load(t.Context(), checkpoint.Ref{Epoch: 1, Step: 1}); err == nil && m.Metrics["loss"] != 0.5 {
		t.Errorf("step 1 has metrics %v", m.Metrics)
	}
}
