package nodeagent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// resumes is the assignment of a rank that prints what it resumes from.
func (n *tiered) resumes(epoch uint64, rank, nodes int32) *agentv1.Assignment {
	as := n.save(epoch, rank, nodes)
	as.Command = []string{"sh", "-c", `echo "$GANGLINE_RESUME_FROM"`}
	return as
}

// wholeAt is where an agent has the whole copy of a step.
func wholeAt(cfg Config, step uint64) string {
	return filepath.Join(cfg.CheckpointLocal, "whole/job-7", checkpoint.Ref{Epoch: step, Step: step}.String())
}

// spoilShards overwrites a step's shards on the shared storage.
func spoilShards(t *testing.T, shared string, step uint64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(shared, "job-7", checkpoint.Ref{Epoch: step, Step: step}.String(), "*.glck"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err == nil {
			err = os.WriteFile(name, slices.Repeat([]byte{7}, int(info.Size())), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestAStartHasItsTensorsNear: each node of a gang has all that its ranks resume from on its own disk before they start, the other's part from the other's agent: the
// shared storage's shards, which are spoilt here, are read neither for that nor by the ranks, of whatever number.
func TestAStartHasItsTensorsNear(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	first, second := newTiered(t, "n1", shared, 0), newTiered(t, "n2", shared, 0)
	order := func(index uint64, one, two *agentv1.Assignment) {
		first.s.order(1, index, one)
		second.s.order(1, index, two)
	}
	order(10, first.save(1, 0, 2), second.save(1, 1, 2))
	first.ran("7-1-0", "from 0 to 1\n")
	second.ran("7-1-1", "from 0 to 1\n")
	awaitComplete(t, shared, 1, 1)
	spoilShards(t, shared, 1)
	order(11, first.resumes(2, 0, 2), second.resumes(2, 1, 2))
	first.ran("7-2-0", wholeAt(first.cfg, 1)+"\n")
	second.ran("7-2-1", wholeAt(second.cfg, 1)+"\n")
	for i, n := range []*tiered{first, second} {
		mine := fmt.Sprintf("shard-%04d-of-0002.glck", i)
		own, err := os.Stat(filepath.Join(l1(n.cfg), mine))
		copied, cerr := os.Stat(filepath.Join(wholeAt(n.cfg, 1), mine))
		if err != nil || cerr != nil || !os.SameFile(own, copied) {
			t.Errorf("node %d has its own shard twice: %v, %v", i, err, cerr)
		}
	}
	order(12, first.save(3, 0, 2), second.save(3, 1, 2))
	first.ran("7-3-0", "from 1 to 3\n")
	second.ran("7-3-1", "from 1 to 3\n")
	awaitComplete(t, shared, 3, 3)
	first.s.order(1, 13, first.save(4, 0, 1)) // a gang of one
	first.ran("7-4-0", "from 3 to 4\n")
	for _, log := range []string{first.log.String(), second.log.String()} {
		if strings.Contains(log, "level=ERROR") {
			t.Errorf("errors in %s", log)
		}
	}
	if _, err := os.Stat(wholeAt(first.cfg, 1)); err == nil {
		t.Error("the copy of an older step stays beside the newer one's")
	}
}

// TestTensorsThatAreNowhereGood: without a good source the one before is taken, by all nodes alike, and loudly; without room the ranks read the shared storage.
func TestTensorsThatAreNowhereGood(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	n := newTiered(t, "n1", shared, 0)
	n.tiers.grace = 1
	for epoch := uint64(1); epoch <= 2; epoch++ {
		n.s.order(1, 9+epoch, n.save(epoch, 0, 1))
		n.ran(fmt.Sprintf("7-%d-0", epoch), fmt.Sprintf("from %d to %d\n", epoch-1, epoch))
		awaitComplete(t, shared, epoch, epoch)
	}
	other := newTiered(t, "n2", shared, 0) // which has nothing of it
	other.tiers.grace = 1
	spoilShards(t, shared, 2)
	other.s.order(1, 20, other.resumes(3, 0, 1))
	if w := other.ran("7-3-0", wholeAt(other.cfg, 1)+"\n"); w.GetLostStep() != 2 {
		t.Errorf("the leader hears that step %d could not be used, want 2", w.GetLostStep())
	}
	contains(t, other.log.String(), "a checkpoint is damaged, an older one is taken")
	n.s.order(1, 21, n.resumes(4, 0, 1)) // it has step 2 good, and does as the others
	n.ran("7-4-0", "\n")
	contains(t, n.log.String(), "no whole copy is made: damage has been found")
	n.s.order(1, 22, n.save(5, 0, 1))
	n.ran("7-5-0", "from 2 to 5\n")
	awaitComplete(t, shared, 5, 5)
	other.stop()
	other.cfg.CheckpointLocalBytes = 1
	other.running = start(t, other.cfg)
	other.s.order(1, 23, other.resumes(6, 0, 1))
	other.ran("7-6-0", "\n")
	contains(t, other.log.String(), "the ranks read it where it is: no room")
}
