package nodeagent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint/remote"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// TestARenameRightBeforeTheEndCounts has a program save, rename and exit at once: its end is told with the checkpoint, and the
// next epoch starts from it; of a damaged one, from the one before.
func TestARenameRightBeforeTheEndCounts(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.CheckpointRoot = t.TempDir()
	r := start(t, cfg)
	save := `cd "$GANGLINE_CHECKPOINT_DIR"; mkdir tmp; echo $GANGLINE_EPOCH >tmp/model; mv tmp step-$GANGLINE_EPOCH; echo "from ${GANGLINE_RESUME_FROM##*/}"`
	next := func(index uint64, key string, epoch uint64, want string) *agentv1.WorkerStatus {
		s.order(1, index, r.script(7, epoch, save))
		w := s.awaitWorker(key, isExited)
		if got := r.output(key, nil); got != want {
			t.Errorf("epoch %d: output %q, want %q", epoch, got, want)
		}
		return w
	}
	w := next(10, "7-1-0", 1, "from \n")
	if w.GetCheckpoint().GetStep() != 1 || !strings.HasSuffix(w.GetCheckpoint().GetPath(), "/job-7/step-0000000001.epoch-1") {
		t.Errorf("end without its checkpoint: %v", w)
	}
	w = next(11, "7-2-0", 2, "from step-0000000001.epoch-1\n")
	if err := os.WriteFile(filepath.Join(w.GetCheckpoint().GetPath(), "model"), []byte("3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	next(12, "7-3-0", 3, "from step-0000000001.epoch-1\n")
	contains(t, r.log.String(), "a checkpoint is damaged, an older one is taken", "step-0000000002.epoch-2")
}

// TestALostStorageIsFetched: a job that asks for copies has them in the object store, the leader hears of it, and when the shared storage has lost all,
// the next epoch goes on from there.
func TestALostStorageIsFetched(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.CheckpointRoot, cfg.CheckpointRemote, cfg.bucket = t.TempDir(), "s3://b/p/", &remote.Memory{}
	r := start(t, cfg)
	save := `cd "$GANGLINE_CHECKPOINT_DIR"; cat "$GANGLINE_RESUME_FROM"/model || true; mkdir tmp; echo $GANGLINE_EPOCH >tmp/model; mv tmp step-$GANGLINE_EPOCH; while ! test -e stop; do sleep 0.02; done`
	run := func(index, epoch uint64, resume, want string) {
		t.Helper()
		key := fmt.Sprintf("7-%d-0", epoch)
		as := r.script(7, epoch, save)
		as.ResumeFrom, as.Checkpoints = resume, &agentv1.CheckpointPolicy{PushNth: 1}
		s.order(1, index, as)
		address := fmt.Sprintf("s3://b/p/job-7/step-000000000%d.epoch-%d", epoch, epoch)
		s.await("the leader hears of the copy "+address, func() bool {
			c := s.find(key).GetCheckpoint()
			return c.GetRemote() == address && c.GetRemoteStep() == int64(epoch)
		})
		if err := os.WriteFile(filepath.Join(cfg.CheckpointRoot, "job-7", "stop"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.awaitWorker(key, isExited)
		if got := r.output(key, nil); got != want {
			t.Errorf("epoch %d: output %q, want %q", epoch, got, want)
		}
	}
	run(10, 1, "", "")
	if err := os.RemoveAll(filepath.Join(cfg.CheckpointRoot, "job-7")); err != nil {
		t.Fatal(err)
	}
	run(11, 2, "/gone/step-0000000001.epoch-1", "1\n")
	contains(t, r.log.String(), "the shared storage held no checkpoint: one was brought from the object store")
}

// TestAUsersLimitHolds: the oldest of all the user's checkpoints go for a new one; when only what must stay is left the commit is refused, the leader
// hears why, and the program trains on; once there is room it is committed.
func TestAUsersLimitHolds(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.CheckpointRoot = t.TempDir()
	r := start(t, cfg)
	job := func(id uint64, text string) *agentv1.Assignment {
		as := r.script(id, 1, `cd "$GANGLINE_CHECKPOINT_DIR"; save() { mkdir tmp; head -c 1000 /dev/zero >tmp/model; mv tmp step-$1; }; `+text)
		as.User, as.CheckpointLimitBytes = "ann", 2500
		return as
	}
	s.order(1, 10, job(1, "save 1"))
	s.awaitWorker("1-1-0", isExited)
	s.order(1, 11, job(2, "save 1; while test -e step-1; do sleep 0.02; done; save 2"))
	s.awaitWorker("2-1-0", isExited)
	has := func(job, step int) bool {
		_, err := os.Stat(filepath.Join(cfg.CheckpointRoot, fmt.Sprintf("job-%d/step-000000000%d.epoch-1/MANIFEST.json", job, step)))
		return err == nil
	}
	if !has(1, 1) || has(2, 1) || !has(2, 2) {
		t.Errorf("1:1 is there: %t, 2:1: %t, 2:2: %t; want the newest of each job alone", has(1, 1), has(2, 1), has(2, 2))
	}
	s.order(1, 12, job(3, "save 1; while ! test -e stop; do sleep 0.02; done"))
	s.await("the leader hears why", func() bool {
		return strings.Contains(s.find("3-1-0").GetCheckpointProblem(), "step-1 is no checkpoint yet: checkpoints of user ann take 1.953 KiB of the 2.441 KiB")
	})
	if has(3, 1) || !isAlive(s, "3-1-0") {
		t.Error("it was committed, or the program was stopped")
	}
	if err := os.RemoveAll(filepath.Join(cfg.CheckpointRoot, "job-1")); err != nil {
		t.Fatal(err)
	}
	s.await("it is committed when there is room", func() bool {
		w := s.find("3-1-0")
		return w.GetCheckpoint().GetStep() == 1 && w.GetCheckpointProblem() == ""
	})
	if err := os.WriteFile(filepath.Join(cfg.CheckpointRoot, "job-3", "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.awaitWorker("3-1-0", isExited)
}

func isAlive(s *scheduler, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(key).GetState() == agentv1.WorkerState_WORKER_STATE_RUNNING
}

// TestABadStorageIsTold: a storage that cannot be written is in the heartbeat, and the agent goes on.
func TestABadStorageIsTold(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.CheckpointRoot = filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(cfg.CheckpointRoot, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg)
	deadline := time.After(patience)
	for r.heartbeat(1).GetStorageProblem() == "" {
		select {
		case <-deadline:
			t.Fatal("nothing is told")
		case <-time.After(time.Millisecond):
		}
	}
	contains(t, r.heartbeat(1).GetStorageProblem(), "the checkpoint storage")
	r.awaitLog("the checkpoint storage has a problem: training goes on")
}
