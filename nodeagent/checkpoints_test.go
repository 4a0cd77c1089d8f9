package nodeagent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
