package nodeagent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// saveFile prints what it resumes from, and where that is, and saves a file of its own.
const saveFile = `test -z "$GANGLINE_RESUME_FROM" || echo "from $(cat "$GANGLINE_RESUME_FROM/sub/model") at $GANGLINE_RESUME_FROM"
cd "$GANGLINE_CHECKPOINT_DIR"; mkdir tmp tmp/sub; echo $GANGLINE_EPOCH >tmp/sub/model; : >tmp/empty; mv tmp step-$GANGLINE_EPOCH`

// TestAStartHasItsFilesNear: what a program saved on the shared storage is whole on the node's own disk before the next epoch's worker starts: fetched once, anew if
// it is damaged there, the one before if it is damaged on the shared storage, and used where it is if the disk has no room.
func TestAStartHasItsFilesNear(t *testing.T) {
	t.Parallel()
	n := newTiered(t, "n1", t.TempDir(), 0)
	near := filepath.Join(n.cfg.CheckpointLocal, "files/job-7")
	step := func(step uint64) string { return fmt.Sprintf("step-%010d.epoch-%d", step, step) }
	shared := filepath.Join(n.cfg.CheckpointRoot, "job-7")
	run := func(epoch, from uint64, at string) {
		t.Helper()
		n.s.order(1, 9+epoch, n.script(7, epoch, saveFile))
		want := ""
		if from > 0 {
			want = fmt.Sprintf("from %d at %s\n", from, filepath.Join(at, step(from)))
		}
		w := n.ran(fmt.Sprintf("7-%d-0", epoch), want)
		lost := int64(0)
		if from+1 < epoch {
			lost = int64(epoch) - 1 //nolint:gosec // small
		}
		if w.GetLostStep() != lost {
			t.Errorf("epoch %d: the leader hears that step %d could not be used, want %d", epoch, w.GetLostStep(), lost)
		}
	}
	spoil := func(dir string, of uint64) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, step(of), "sub/model"), []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(1, 0, "")
	run(2, 1, near)
	spoil(shared, 2)
	run(3, 1, near) // which is there from before
	contains(t, n.log.String(), "a checkpoint is damaged, an older one is taken")
	run(4, 3, near)
	spoil(near, 3)
	spoil(shared, 4)
	run(5, 3, near)
	contains(t, n.log.String(), "the copy on the node's own disk is fetched anew")
	n.stop()
	n.cfg.CheckpointLocalBytes = 1
	n.running = start(t, n.cfg)
	run(6, 5, shared)
	contains(t, n.log.String(), "is used where it is: no room")
	if log := n.log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("errors in %s", log)
	}
}
