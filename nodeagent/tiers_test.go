package nodeagent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/async"
	"github.com/gangline/gangline/nodeagent/workerclient"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// saveArg has the test binary be a worker that resumes, saves one step more, reports it, and dies by SIGKILL.
const saveArg = "gangline-test-save"

// saveOnce is that worker. It prints "from STEP to STEP", or what went wrong.
func saveOnce() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	env, err := workerclient.FromEnv()
	if err != nil {
		return err
	}
	client, err := workerclient.New(env)
	if err != nil {
		return err
	}
	dir, err := checkpoint.NewDir(env.CheckpointDir)
	if err != nil {
		return err
	}
	local, err := env.Local(func(err error) { fmt.Println("fell back:", err) })
	if err != nil {
		return err
	}
	store, err := checkpoint.Open(checkpoint.Config{FS: dir, Job: fmt.Sprintf("job-%d", env.JobID), Local: local})
	if err != nil {
		return err
	}
	if err := store.Fence(ctx, env.Epoch); err != nil {
		return err
	}
	m, _, err := store.Latest(ctx)
	if err != nil && !errors.Is(err, checkpoint.ErrNone) {
		return err
	}
	if err := readBack(ctx, store, m); err != nil {
		return err
	}
	step := env.Epoch // each epoch saves one step, by whatever number of ranks
	state := []float32{float32(env.Rank), float32(step)}
	_, err = store.WriteShard(ctx, checkpoint.ShardWrite{
		Epoch: env.Epoch, Step: step, Rank: env.Rank, WorldSize: env.WorldSize,
		Tensors: []checkpoint.Tensor{checkpoint.Whole(fmt.Sprintf("w%d", env.Rank), state, 2)},
	})
	if err != nil {
		return err
	}
	fmt.Printf("from %d to %d\n", m.Step, step)
	if env.Rank == 0 {
		got, err := async.Commit(ctx, store, checkpoint.CommitRequest{Epoch: env.Epoch, Step: step, WorldSize: env.WorldSize}, patience, func() bool { return false })
		if err != nil {
			return err
		}
		path := filepath.Join(env.CheckpointDir, got.Dir)
		if err := client.ReportCheckpoint(ctx, workerclient.Checkpoint{Step: int64(step), Path: path, Bytes: got.Bytes()}); err != nil { //nolint:gosec // small
			return err
		}
	}
	return unix.Kill(os.Getpid(), unix.SIGKILL)
}

// readBack reads all that the ranks of a step have saved.
func readBack(ctx context.Context, store *checkpoint.Store, m checkpoint.Manifest) error {
	for _, name := range m.TensorNames() {
		got := make([]float32, 2)
		if err := store.ReadTensor(ctx, m, name, got); err != nil {
			return err
		}
		if fmt.Sprint("w", got[0]) != name || got[1] != float32(m.Step) {
			return fmt.Errorf("%s of step %d is %v", name, m.Step, got)
		}
	}
	return nil
}

// tiered is an agent that keeps checkpoints on its own disk, and its scheduler.
type tiered struct {
	*running
	s   *scheduler
	cfg Config
}

// neverDrains is a rate at which nothing arrives within a test.
const neverDrains = 1

// newTiered starts one on a shared directory.
func newTiered(t *testing.T, name, shared string, rate int64) *tiered {
	t.Helper()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.Name, cfg.CheckpointRoot, cfg.CheckpointLocal, cfg.CheckpointDrainRate = name, shared, t.TempDir(), rate
	return &tiered{running: start(t, cfg), s: s, cfg: cfg}
}

// restart starts the agent anew, which drains at another rate.
func (n *tiered) restart(rate int64) {
	n.t.Helper()
	n.stop()
	n.cfg.CheckpointDrainRate = rate
	n.running = start(n.t, n.cfg)
}

// save is the assignment of a rank on this node for a gang with one rank on each of some nodes.
func (n *tiered) save(epoch uint64, rank, nodes int32) *agentv1.Assignment {
	as := n.script(7, epoch, "")
	exe, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	as.Command, as.WorldSize, as.NodeRank = []string{exe, saveArg}, nodes, rank
	as.Workers[0].Rank = rank
	as.Nodes = nil
	for range nodes {
		as.Nodes = append(as.Nodes, &agentv1.GangNode{Host: "127.0.0.1", Gpus: 1, Workers: 1})
	}
	return as
}

// ran waits for the end of a worker and checks what it printed.
func (n *tiered) ran(key, want string) *agentv1.WorkerStatus {
	n.t.Helper()
	w := n.s.awaitWorker(key, isExited)
	if got := n.output(key, nil); got != want {
		n.t.Errorf("worker %s: output %q, want %q; end: %v", key, got, want, w)
	}
	return w
}

// awaitComplete waits until a step is complete on the shared storage.
func awaitComplete(t *testing.T, shared string, step, epoch uint64) {
	t.Helper()
	name := filepath.Join(shared, "job-7", checkpoint.Ref{Epoch: epoch, Step: step}.String(), "MANIFEST.json")
	deadline := time.After(patience)
	for {
		if _, err := os.Stat(name); err == nil {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s is not there", name)
		}
	}
}

// TestLocalCheckpointsOfOneNode: what a worker saved on the node's disk before it was killed is told as local, drained by a later agent,
// told as committed then, and resumed from; and a launch does not wait for a slow drain.
func TestLocalCheckpointsOfOneNode(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	n := newTiered(t, "n1", shared, neverDrains)
	n.s.order(1, 10, n.save(1, 0, 1))
	w := n.ran("7-1-0", "from 0 to 1\n")
	if l := w.GetLocalCheckpoint(); l.GetStep() != 1 || l.GetCopied() || w.GetCheckpoint() != nil {
		t.Errorf("the end: local %v, committed %v", l, w.GetCheckpoint())
	}
	if _, err := os.Stat(filepath.Join(l1(n.cfg), "shard-0000-of-0001.glck")); err != nil {
		t.Error(err)
	}
	n.restart(0)
	awaitComplete(t, shared, 1, 1)
	n.s.await("the checkpoint as committed", func() bool {
		w := n.s.find("7-1-0")
		return w.GetCheckpoint().GetStep() == 1 && w.GetLocalCheckpoint() == nil
	})
	n.restart(neverDrains)
	n.s.order(1, 11, n.save(2, 0, 1))
	n.ran("7-2-0", "from 1 to 2\n")
	n.s.order(1, 12, n.save(3, 0, 1)) // step 2 is on the node's disk alone
	n.ran("7-3-0", "from 2 to 3\n")
}

// l1 is where step 1 of epoch 1 lies on a node's own disk.
func l1(cfg Config) string {
	return filepath.Join(cfg.CheckpointLocal, "own/job-7/step-0000000001.epoch-1")
}

// gangOfTwo has two nodes save a step that nothing drains.
func gangOfTwo(t *testing.T, shared string) (first, second *tiered) {
	t.Helper()
	first, second = newTiered(t, "n1", shared, neverDrains), newTiered(t, "n2", shared, neverDrains)
	first.s.set(func() {
		first.s.desired = &agentv1.Desired{Fence: &agentv1.Fence{Term: 1, Index: 10}, Assignments: []*agentv1.Assignment{first.save(1, 0, 2)}}
	})
	second.s.set(func() {
		second.s.desired = &agentv1.Desired{
			Fence: &agentv1.Fence{Term: 1, Index: 10}, Assignments: []*agentv1.Assignment{second.save(1, 1, 2)}, CopiesTo: first.Address(),
		}
	})
	first.ran("7-1-0", "from 0 to 1\n")
	second.ran("7-1-1", "from 0 to 1\n")
	return first, second
}

// TestAStartAsksOtherAgents: the next epoch runs on one node alone, and gets the other's shard from its agent.
func TestAStartAsksOtherAgents(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	first, _ := gangOfTwo(t, shared)
	first.s.order(1, 11, first.save(2, 0, 1))
	first.ran("7-2-0", "from 1 to 2\n")
}

// TestALostNodeHasACopy: a node is lost with its disk before anything was drained; its shard is on another one.
func TestALostNodeHasACopy(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	first, second := gangOfTwo(t, shared)
	third := newTiered(t, "n3", shared, 0) // keeps rank 0's
	first.s.set(func() {
		first.s.desired = &agentv1.Desired{Fence: &agentv1.Fence{Term: 1, Index: 11}, CopiesTo: third.Address(), Assignments: first.s.desired.GetAssignments()}
	})
	first.s.await("both shards have copies", func() bool { return first.s.find("7-1-0").GetLocalCheckpoint().GetCopied() })
	second.stop()
	if err := os.RemoveAll(second.cfg.CheckpointLocal); err != nil {
		t.Fatal(err)
	}
	third.s.order(1, 12, third.save(2, 0, 1))
	third.ran("7-2-0", "from 1 to 2\n")
	contains(t, third.log.String(), "checkpoint that was on nodes' own disks is complete")
}

// TestALostPartIsSaidLoudly: a shard that nobody has any more costs its step; the start takes the one before.
func TestALostPartIsSaidLoudly(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	n := newTiered(t, "n1", shared, 0)
	n.s.order(1, 10, n.save(1, 0, 1))
	n.ran("7-1-0", "from 0 to 1\n")
	awaitComplete(t, shared, 1, 1)
	n.restart(neverDrains)
	n.s.order(1, 11, n.save(2, 0, 1))
	n.ran("7-2-0", "from 1 to 2\n")
	n.stop()
	other := newTiered(t, "n2", shared, 0)
	other.tiers.grace = time.Millisecond
	other.s.order(1, 12, other.save(3, 0, 1))
	if w := other.ran("7-3-0", "from 1 to 3\n"); w.GetLostStep() != 2 {
		t.Errorf("the leader hears of lost step %d, want 2", w.GetLostStep())
	}
	if log := other.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "is lost with the node that had a part of it") {
		t.Errorf("no loud word in the log")
	}
}

// TestUsersGetNoShards: over TLS a certificate for clients alone is a user's.
func TestUsersGetNoShards(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		usage []x509.ExtKeyUsage
		want  codes.Code
	}{
		{nil, codes.OK},
		{[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, codes.OK},
		{[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, codes.PermissionDenied},
	} {
		info := credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{ExtKeyUsage: c.usage}}}}}
		if got := status.Code(checkPeerCert(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: info}))); got != c.want {
			t.Errorf("usage %v: %v, want %v", c.usage, got, c.want)
		}
	}
}
