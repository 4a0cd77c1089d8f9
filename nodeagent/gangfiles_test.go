package nodeagent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// filesGang is two nodes, each with an agent of its own, whose programs write files of their own.
type filesGang struct {
	t      *testing.T
	nodes  [2]*tiered
	shared string
	meet   string // a directory by which their ranks wait for each other
	local  string // the job file's checkpoint.local
	index  uint64
}

func newFilesGang(t *testing.T, rate int64) *filesGang {
	t.Helper()
	g := &filesGang{t: t, shared: t.TempDir(), meet: t.TempDir(), local: localAll, index: 10}
	for i := range g.nodes {
		g.nodes[i] = newTiered(t, fmt.Sprintf("n%d", i+1), g.shared, rate)
	}
	return g
}

// run starts an epoch with one rank on each node; each prints what it began from, writes its files, waits for the other one, and then runs what commits.
func (g *filesGang) run(epoch uint64, commit string) {
	g.t.Helper()
	g.index++
	for rank, n := range g.nodes {
		as := n.script(7, epoch, `test -z "$GANGLINE_RESUME_FROM" || cat "$GANGLINE_RESUME_FROM/ranks/0" "$GANGLINE_RESUME_FROM/ranks/1"
cd "$GANGLINE_CHECKPOINT_FILES_DIR"; e=$GANGLINE_EPOCH; mkdir -p tmp-$e/ranks; echo "$RANK in $e" >tmp-$e/ranks/$RANK; echo same >tmp-$e/config.json
meet() { : >`+g.meet+`/$e-$1-$RANK; while ! test -e `+g.meet+`/$e-$1-$((1-RANK)); do sleep 0.02; done; }
`+commit)
		if as.Env == nil {
			as.Env = map[string]string{}
		}
		as.Env[envLocal] = g.local
		as.WorldSize, as.NodeRank, as.Workers[0].Rank, as.Nodes = 2, int32(rank), int32(rank), nil
		for range g.nodes {
			as.Nodes = append(as.Nodes, &agentv1.GangNode{Host: "127.0.0.1", Gpus: 1, Workers: 1, LocalCheckpoints: true})
		}
		d := &agentv1.Desired{Fence: &agentv1.Fence{Term: 1, Index: g.index}, Assignments: []*agentv1.Assignment{as}}
		if rank == 1 {
			d.CopiesTo = g.nodes[0].Address()
		}
		n.s.set(func() { n.s.desired = d })
	}
}

// ended waits for both ranks' ends, checks what they began from, and gives rank 0's.
func (g *filesGang) ended(epoch, from uint64) *agentv1.WorkerStatus {
	g.t.Helper()
	want := ""
	if from > 0 {
		want = fmt.Sprintf("0 in %d\n1 in %d\n", from, from)
	}
	end := g.nodes[0].ran(fmt.Sprintf("7-%d-0", epoch), want)
	g.nodes[1].ran(fmt.Sprintf("7-%d-1", epoch), want)
	return end
}

const (
	renamed  = `meet a; test $RANK = 1 || mv tmp-$e step-$e; exit 1`
	disagree = `echo $RANK >tmp-$e/config.json; ` + renamed
)

// wantComplete checks that a step is complete on the shared storage, with both nodes' files.
func (g *filesGang) wantComplete(epoch uint64) {
	g.t.Helper()
	awaitComplete(g.t, g.shared, epoch, epoch)
	for name, want := range map[string]string{"ranks/0": fmt.Sprintf("0 in %d\n", epoch), "ranks/1": fmt.Sprintf("1 in %d\n", epoch), "config.json": "same\n"} {
		if got, err := os.ReadFile(filepath.Join(g.shared, "job-7", stepName(epoch), name)); err != nil || string(got) != want {
			g.t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

// TestFilesOfSeveralNodesBecomeOne: one rank renames its directory right before its exit, and both nodes' files are one checkpoint, with what both wrote alike once; or each renames its own.
func TestFilesOfSeveralNodesBecomeOne(t *testing.T) {
	t.Parallel()
	g := newFilesGang(t, 0)
	g.run(1, renamed)
	g.ended(1, 0)
	g.wantComplete(1)
	g.run(2, `meet a; mv tmp-$e step-$e; exit 0`)
	g.nodes[0].s.await("a success that knows its checkpoint", func() bool { return g.nodes[0].s.find("7-2-0").GetState() == isExited })
	if c := g.ended(2, 1).GetCheckpoint(); c.GetStep() != 2 || c.GetPath() != filepath.Join(g.shared, "job-7", stepName(2)) {
		t.Errorf("the success tells of %v", c)
	}
	g.wantComplete(2)
	g.run(3, `rm -r tmp-$e; exit 1`)
	g.ended(3, 2)
}

// TestFilesOfSeveralNodesSurviveAgents: the agents are restarted between the commit and the drain.
func TestFilesOfSeveralNodesSurviveAgents(t *testing.T) {
	t.Parallel()
	g := newFilesGang(t, neverDrains)
	g.run(1, renamed)
	if l := g.ended(1, 0).GetLocalCheckpoint(); l.GetStep() != 1 {
		t.Errorf("the end tells of %v", l)
	}
	if _, err := os.Stat(filepath.Join(g.shared, "job-7", stepName(1))); err == nil {
		t.Error("it is on the shared storage already")
	}
	for _, n := range g.nodes {
		n.restart(0)
	}
	g.wantComplete(1)
	g.nodes[0].s.await("the checkpoint as committed", func() bool { return g.nodes[0].s.find("7-1-0").GetCheckpoint().GetStep() == 1 })
	for i, n := range g.nodes {
		dir := filepath.Join(n.cfg.CheckpointLocal, "files/job-7")
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			left, err := filepath.Glob(dir + "/*.part-*")
			if err == nil && len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("node %d keeps %v, %v", i, left, err)
			}
		}
	}
}

// TestFilesOfALostNodeOfSeveral: a node is lost before its part was drained: with a copy the checkpoint is saved by the next start, without it is absent, said loudly, and the one before stays.
func TestFilesOfALostNodeOfSeveral(t *testing.T) {
	t.Parallel()
	g := newFilesGang(t, neverDrains)
	lose := func() {
		t.Helper()
		g.nodes[1].stop()
		if err := os.RemoveAll(g.nodes[1].cfg.CheckpointLocal); err != nil {
			t.Fatal(err)
		}
		g.nodes[1] = newTiered(t, "n3", g.shared, neverDrains)
		g.nodes[1].tiers.grace, g.nodes[0].tiers.grace = time.Millisecond, time.Millisecond
	}
	g.run(1, renamed)
	g.ended(1, 0)
	copied := filepath.Join(g.nodes[0].cfg.CheckpointLocal, "filecopies/job-7", stepName(1)+".part-0001-of-0002/ranks/1")
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		held, _ := filepath.Glob(filepath.Join(g.shared, "job-7/parts", stepName(1), "held-0001-of-0002-*"))
		if _, err := os.Stat(copied); err == nil && len(held) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it has no copy")
		}
	}
	lose()
	g.run(2, strings.Replace(renamed, "meet a", "meet a; rm -f tmp-$e/../../../none", 1))
	g.ended(2, 1)
	g.wantComplete(1)
	if err := os.RemoveAll(filepath.Join(g.nodes[0].cfg.CheckpointLocal, "filecopies")); err != nil {
		t.Fatal(err)
	}
	lose()
	g.run(3, `exit 1`)
	if w := g.ended(3, 1); w.GetLostStep() != 2 {
		t.Errorf("the leader hears of lost step %d, want 2", w.GetLostStep())
	}
	contains(t, g.nodes[0].log.String(), "level=ERROR", "is lost with the node that had a part of it")
}

// TestFilesOfSeveralNodesThatDisagree: other bytes under the same name are no checkpoint, and the leader hears path and nodes.
func TestFilesOfSeveralNodesThatDisagree(t *testing.T) {
	t.Parallel()
	g := newFilesGang(t, 0)
	g.run(1, disagree)
	w := g.ended(1, 0)
	contains(t, w.GetCheckpointProblem(), "step-1 is no checkpoint yet", `"config.json" of nodes n1 and n2`)
	if w.GetCheckpoint() != nil || w.GetLocalCheckpoint() != nil {
		t.Errorf("the leader hears of %v, %v", w.GetCheckpoint(), w.GetLocalCheckpoint())
	}
	g.run(2, `mv tmp-$e other; meet a; test $RANK = 1 || mv other step-$e; exit 1`)
	contains(t, g.ended(2, 0).GetCheckpointProblem(), "node n2 has files in other, and none in step-2")
	g.run(3, renamed)
	g.ended(3, 0)
	g.wantComplete(3)
	contains(t, g.nodes[1].log.String(), "were not committed in an earlier epoch")
}

// TestANodeWithoutRoomSavesFar: a node whose disk is full writes to the shared storage, says so, and its part counts as the others' do.
func TestANodeWithoutRoomSavesFar(t *testing.T) {
	t.Parallel()
	g := newFilesGang(t, 0)
	n := g.nodes[1]
	n.stop()
	n.cfg.CheckpointLocalBytes = 1
	if err := os.MkdirAll(filepath.Join(n.cfg.CheckpointLocal, "own/job-9/step-0000000001.epoch-1"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.cfg.CheckpointLocal, "own/job-9/step-0000000001.epoch-1/shard-0000-of-0001.glck"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	n.restart(0)
	for deadline := time.Now().Add(patience); n.tiers.drainer.FilesRoom(1) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the disk does not fill")
		}
	}
	g.run(1, renamed)
	g.ended(1, 0)
	g.wantComplete(1)
	contains(t, n.log.String(), "a job saves this node's files on the shared storage directly", "node-0001-of-0002")
	g.run(2, `exit 1`)
	g.ended(2, 1)
}

// TestFilesOfSeveralNodesMeetUnlessAskedApart: ranks on several nodes find each other's files, as programs expect, if the job does not ask for nodes' own disks.
func TestFilesOfSeveralNodesMeetUnlessAskedApart(t *testing.T) {
	t.Parallel()
	for _, local := range []string{"", localTensors} {
		g := newFilesGang(t, 0)
		g.local = local
		g.run(1, `meet a; cat tmp-$e/ranks/0 tmp-$e/ranks/1; meet b; test $RANK = 1 || mv tmp-$e step-$e; exit 1`)
		for rank, n := range g.nodes {
			n.ran(fmt.Sprintf("7-1-%d", rank), "0 in 1\n1 in 1\n")
		}
		g.wantComplete(1)
	}
}
