package nodeagent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// TestAStartFromAnOlderCheckpointIsLoud: the newest one that the scheduler knows is gone; the job goes on from the one before, the log and the leader hear of it; one that asks for it
// does not start.
func TestAStartFromAnOlderCheckpointIsLoud(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.CheckpointRoot = t.TempDir()
	r := start(t, cfg)
	dir := filepath.Join(cfg.CheckpointRoot, "job-7")
	run := func(index, epoch uint64, resume string, env map[string]string) *agentv1.WorkerStatus {
		t.Helper()
		as := r.script(7, epoch, `cd "$GANGLINE_CHECKPOINT_DIR"; mkdir tmp; echo 1 >tmp/model; mv tmp step-$GANGLINE_EPOCH; exit 1`)
		as.ResumeFrom, as.Env = resume, env
		s.order(1, index, as)
		return s.awaitWorker(fmt.Sprintf("7-%d-0", epoch), isExited)
	}
	run(10, 1, "", nil)
	run(11, 2, filepath.Join(dir, stepName(1)), nil)
	if err := os.RemoveAll(filepath.Join(dir, stepName(2))); err != nil {
		t.Fatal(err)
	}
	strict := map[string]string{checkpoint.EnvOlder: checkpoint.RefuseOlder}
	if w := run(12, 3, filepath.Join(dir, stepName(2)), strict); w.GetExitCode() != launchFailed {
		t.Errorf("a job that refuses older checkpoints: %v", w)
	} else {
		contains(t, w.GetMessage(), stepName(2), stepName(1), "GANGLINE_CHECKPOINT_OLDER=refuse")
	}
	w := run(13, 4, filepath.Join(dir, stepName(2)), nil)
	if o := w.GetOlderStart(); o.GetCommittedStep() != 2 || o.GetResumedStep() != 1 || o.GetFromNothing() || w.GetExitCode() != 1 {
		t.Errorf("the leader hears %v", w)
	}
	contains(t, r.log.String(), "level=ERROR", "the newest checkpoint that was committed is not on the storage any more")
	if w := run(14, 5, filepath.Join(dir, stepName(4)), strict); w.GetOlderStart() != nil || w.GetExitCode() != 1 {
		t.Errorf("nothing is older: %v", w)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if o := run(15, 6, filepath.Join(dir, stepName(5)), nil).GetOlderStart(); o.GetCommittedStep() != 5 || !o.GetFromNothing() {
		t.Errorf("the leader hears %v", o)
	}
}
