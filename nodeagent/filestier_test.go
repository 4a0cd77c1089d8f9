package nodeagent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// saveFast is saveFile for a program that saves where it is told to.
const saveFast = `test -z "$GANGLINE_RESUME_FROM" || echo "from $(cat "$GANGLINE_RESUME_FROM/sub/model") at $GANGLINE_RESUME_FROM"
cd "$GANGLINE_CHECKPOINT_FILES_DIR"; mkdir tmp tmp/sub; echo $GANGLINE_EPOCH >tmp/sub/model; head -c 3000000 /dev/zero >tmp/large; : >tmp/empty; mv tmp step-$GANGLINE_EPOCH; exit `

// stepName is the checkpoint that an epoch saves here.
func stepName(epoch uint64) string { return fmt.Sprintf("step-%010d.epoch-%d", epoch, epoch) }

// saveFiles runs an epoch that saves, and fails, so that nobody waits for the drain; it checks what it began from.
func (n *tiered) saveFiles(index, epoch uint64, from string) *agentv1.WorkerStatus {
	n.t.Helper()
	n.s.order(1, index, n.script(7, epoch, saveFast+"1"))
	return n.ran(fmt.Sprintf("7-%d-0", epoch), from)
}

func (n *tiered) began(epoch uint64, dir string) string {
	return fmt.Sprintf("from %d at %s\n", epoch, filepath.Join(n.cfg.CheckpointLocal, dir, "job-7", stepName(epoch)))
}

// TestFilesAreSavedNear: what a program saves on its node's own disk is told as local, drained by a later agent, told as committed then, and resumed from
// where it is.
func TestFilesAreSavedNear(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	n := newTiered(t, "n1", shared, neverDrains)
	w := n.saveFiles(10, 1, "")
	if l := w.GetLocalCheckpoint(); l.GetStep() != 1 || l.GetPath() != filepath.Join(shared, "job-7", stepName(1)) || w.GetCheckpoint() != nil {
		t.Errorf("the end: local %v, committed %v", l, w.GetCheckpoint())
	}
	if _, err := os.Stat(filepath.Join(shared, "job-7", stepName(1))); err == nil {
		t.Error("it is on the shared storage already")
	}
	n.restart(0)
	awaitComplete(t, shared, 1, 1)
	n.s.await("the checkpoint as committed", func() bool {
		w := n.s.find("7-1-0")
		return w.GetCheckpoint().GetStep() == 1 && w.GetLocalCheckpoint() == nil
	})
	n.restart(neverDrains)
	n.saveFiles(11, 2, n.began(1, "files"))
	n.saveFiles(12, 3, n.began(2, "files")) // step 2 is on the node's disk alone
	awaitComplete(t, shared, 2, 2)          // which the start has seen to
}

// TestFilesComeFromTheirNode: the next epoch runs on another node, and gets them from the agent that has them.
func TestFilesComeFromTheirNode(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	first, second := newTiered(t, "n1", shared, neverDrains), newTiered(t, "n2", shared, neverDrains)
	first.saveFiles(10, 1, "")
	second.saveFiles(11, 2, second.began(1, "files"))
	contains(t, second.log.String(), "checkpoint that was on nodes' own disks is complete")
}

// TestFilesOfALostNodeHaveACopy: a node is lost with its disk before anything was drained; another one, which has a copy, starts from it.
func TestFilesOfALostNodeHaveACopy(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	first, second := newTiered(t, "n1", shared, neverDrains), newTiered(t, "n2", shared, neverDrains)
	first.saveFiles(10, 1, "")
	first.s.set(func() {
		first.s.desired = &agentv1.Desired{Fence: &agentv1.Fence{Term: 1, Index: 11}, CopiesTo: second.Address(), Assignments: first.s.desired.GetAssignments()}
	})
	first.s.await("the files have a copy", func() bool { return first.s.find("7-1-0").GetLocalCheckpoint().GetCopied() })
	first.stop()
	if err := os.RemoveAll(first.cfg.CheckpointLocal); err != nil {
		t.Fatal(err)
	}
	second.saveFiles(12, 2, second.began(1, "filecopies"))
}

// TestRemovedFilesStayRemoved: what a person removes from the shared storage does not come back from a node's disk.
func TestRemovedFilesStayRemoved(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	n := newTiered(t, "n1", shared, 0)
	n.saveFiles(10, 1, "")
	awaitComplete(t, shared, 1, 1)
	n.saveFiles(11, 2, n.began(1, "files"))
	awaitComplete(t, shared, 2, 2)
	mark := filepath.Join(n.cfg.CheckpointLocal, "files/job-7", stepName(2)+".drained")
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		left, err := os.ReadDir(filepath.Join(shared, "job-7/local-files"))
		if _, merr := os.Stat(mark); merr == nil && err == nil && len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the node does not note that it is there: %v, %v", left, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(shared, "job-7", stepName(2))); err != nil {
		t.Fatal(err)
	}
	n.tiers.drainer.Look(t.Context())
	if _, err := os.Stat(filepath.Join(shared, "job-7", stepName(2))); err == nil {
		t.Error("it has come back")
	}
	n.saveFiles(12, 3, n.began(1, "files"))
}

// TestLostFilesAreSaidLoudly: what nobody has any more costs its step; the start takes the one before, and the leader hears of it. What is damaged counts as lost.
func TestLostFilesAreSaidLoudly(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	n := newTiered(t, "n1", shared, 0)
	n.saveFiles(10, 1, "")
	awaitComplete(t, shared, 1, 1)
	n.restart(neverDrains)
	n.tiers.grace = time.Millisecond
	n.saveFiles(11, 2, n.began(1, "files"))
	if err := os.WriteFile(filepath.Join(n.cfg.CheckpointLocal, "files/job-7", stepName(2), "sub/model"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := n.saveFiles(12, 3, n.began(1, "files")); w.GetLostStep() != 2 {
		t.Errorf("the leader hears of lost step %d, want 2", w.GetLostStep())
	}
	n.stop()
	other := newTiered(t, "n2", shared, 0)
	other.tiers.grace = time.Millisecond
	if w := other.saveFiles(13, 4, other.began(1, "files")); w.GetLostStep() != 3 {
		t.Errorf("the leader hears of lost step %d, want 3", w.GetLostStep())
	}
	contains(t, other.log.String(), "level=ERROR", "is lost with the node that had a part of it")
}
