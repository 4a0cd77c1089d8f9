package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
)

// must applies commands that no state may refuse.
func (st *story) must(t *testing.T, cmds ...cluster.Command) {
	t.Helper()
	for _, c := range cmds {
		if r := st.apply(t, c); r.Code != cluster.OK {
			t.Fatalf("%s: %s", describe(c), r.Message)
		}
	}
}

// machine is a node as its agent introduces it.
func machine(id cluster.NodeID, gpus int) cluster.Node {
	n := cluster.Node{ID: id, Name: "node-" + string(id), Incarnation: 1, Host: "host-" + string(id), CPUMilli: 64000, MemBytes: 1 << 36}
	for g := range gpus {
		n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%s/%d", id, g), Type: "h100", Healthy: true})
	}
	return n
}

// gang is a story in which job 1 has started with one worker on each of the
// GPUs, named "node/number"; the nodes a and b have four each.
func gang(t *testing.T, gpus ...string) *story {
	t.Helper()
	return gangOf(t, func(*cluster.JobSpec) {}, gpus...)
}

// gangOf is gang of a job that change makes another.
func gangOf(t *testing.T, change func(*cluster.JobSpec), gpus ...string) *story {
	t.Helper()
	st := newStory(t)
	for _, id := range []cluster.NodeID{"a", "b"} {
		st.must(t, &cluster.RegisterNode{Node: machine(id, 4)})
	}
	spec := &cluster.JobSpec{
		Name: "train", Command: []string{"true"}, GPUs: int32(len(gpus)), Retries: 1,
		Warn: cluster.DefaultWarn, Grace: cluster.DefaultGrace,
	}
	change(spec)
	spec.Normalize()
	st.must(t, &cluster.SubmitJob{RequestID: "r", User: "ann", Spec: spec})
	start := &cluster.StartJob{Job: 1, Epoch: 1}
	for i, uuid := range gpus {
		start.Workers = append(start.Workers, cluster.Placement{Rank: cluster.Rank(i), Node: cluster.NodeID(uuid[:1]), GPUs: []string{uuid}})
	}
	st.must(t, start)
	return st
}

// became tells the state of ranks of job 1, each on its node.
func (st *story) became(t *testing.T, state cluster.WorkerState, code int32, ranks ...cluster.Rank) {
	t.Helper()
	for _, r := range ranks {
		j := st.s.Job(1)
		st.must(t, &cluster.ReportWorkers{Node: j.Workers[r].Node, Workers: []cluster.WorkerReport{
			{Job: 1, Epoch: j.Epoch, Rank: r, State: state, ExitCode: code},
		}})
	}
}

func runs(job cluster.JobID, epoch cluster.Epoch, rank cluster.Rank) WorkerStatus {
	return WorkerStatus{Key: WorkerKey{job, epoch, rank}, State: cluster.WorkerRunning}
}

func exited(job cluster.JobID, epoch cluster.Epoch, rank cluster.Rank, code int32) WorkerStatus {
	return WorkerStatus{Key: WorkerKey{job, epoch, rank}, State: cluster.WorkerExited, ExitCode: code}
}

func orderOf(t *testing.T, st *story, node cluster.NodeID, reported ...WorkerStatus) Order {
	t.Helper()
	o, ok := OrderFor(st.s, node, reported)
	if !ok {
		t.Fatalf("node %s has no order", node)
	}
	return o
}

func TestOrderOfAGang(t *testing.T) {
	t.Parallel()
	st := gang(t, "a/2", "a/3", "b/0")
	st.became(t, cluster.WorkerRunning, 0, 0, 1, 2)
	st.must(t, &cluster.RecordCheckpoint{Job: 1, Epoch: 1, Step: 10, Path: "/ckpt/10"})
	j := st.s.Job(1)
	want := Order{Assignments: []Assignment{{
		Job: j, Members: []cluster.Rank{0, 1, 2}, Workers: []AssignedWorker{{Rank: 2, LocalRank: 0, GPUs: []string{"b/0"}, Milli: cluster.WholeGPU}},
		Nodes: []GangNode{{Host: "host-a", GPUs: 2, Workers: 2}, {Host: "host-b", GPUs: 1, Workers: 1}}, NodeRank: 1, MasterPort: masterPortBase + 2, Resume: j.Checkpoint,
	}}}
	if diff := cmp.Diff(want, orderOf(t, st, "b")); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	// A worker that has ended is not to be started again; its neighbour keeps its local rank.
	st.became(t, cluster.WorkerExited, 0, 0)
	got := orderOf(t, st, "a", exited(1, 1, 0, 0), runs(1, 1, 1))
	if diff := cmp.Diff([]AssignedWorker{{Rank: 1, LocalRank: 1, GPUs: []string{"a/3"}, Milli: cluster.WholeGPU}}, got.Assignments[0].Workers); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]WorkerKey{{1, 1, 0}}, got.Acknowledged); diff != "" {
		t.Errorf("acknowledged (-want +got):\n%s", diff)
	}
	// All of this node's workers have ended, others run: nothing to do here.
	st.became(t, cluster.WorkerExited, 0, 1)
	if got := orderOf(t, st, "a"); len(got.Assignments) != 0 {
		t.Errorf("ended workers are still assigned: %v", got)
	}
}

// TestNothingIsSaidToALostNode: an empty order would end workers that are the
// node's own again once it is registered.
func TestNothingIsSaidToALostNode(t *testing.T) {
	t.Parallel()
	st := gang(t, "a/0")
	st.must(t, &cluster.LoseNode{Node: "a", Incarnation: 1, Reason: "x"})
	for _, node := range []cluster.NodeID{"a", "nobody"} {
		if o, ok := OrderFor(st.s, node, []WorkerStatus{runs(1, 1, 0)}); ok {
			t.Errorf("node %s has an order: %v", node, o)
		}
	}
}

func TestStopOrder(t *testing.T) {
	t.Parallel()
	evict := func(cause cluster.StopCause) func(*testing.T, *story) {
		return func(t *testing.T, st *story) {
			st.must(t, &cluster.EvictJob{Job: 1, Epoch: 1, Cause: cause, Reason: "because"})
		}
	}
	for name, c := range map[string]struct {
		cause func(*testing.T, *story)
		warn  time.Duration
	}{
		"cancel":       {func(t *testing.T, st *story) { st.must(t, &cluster.CancelJob{Job: 1}) }, cluster.DefaultWarn},
		"time limit":   {evict(cluster.StopTimeLimit), cluster.DefaultWarn},
		"preempt":      {evict(cluster.StopPreempt), cluster.DefaultWarn},
		"resize":       {evict(cluster.StopResize), cluster.DefaultWarn},
		"move":         {evict(cluster.StopMove), cluster.DefaultWarn},
		"drain":        {evict(cluster.StopDrain), cluster.DefaultWarn},
		"launch stuck": {evict(cluster.StopLaunchStuck), cluster.DefaultWarn},
		"failure":      {func(t *testing.T, st *story) { st.became(t, cluster.WorkerExited, 1, 1) }, 0},
		"node lost": {func(t *testing.T, st *story) {
			st.must(t, &cluster.LoseNode{Node: "b", Incarnation: 1, Reason: "x"})
		}, 0},
	} {
		st := gang(t, "a/0", "b/0")
		st.became(t, cluster.WorkerRunning, 0, 0, 1)
		if o := orderOf(t, st, "a"); o.Assignments[0].Stop != nil {
			t.Errorf("%s: is to stop before", name)
		}
		c.cause(t, st)
		o := orderOf(t, st, "a")
		if len(o.Assignments) != 1 {
			t.Errorf("%s: no assignment in %v", name, o)
			continue
		}
		want := &Stop{Reason: st.s.Job(1).StopReason, Warn: c.warn, Grace: cluster.DefaultGrace}
		if want.Reason == "" {
			t.Errorf("%s: the workers are not told why", name)
		}
		if diff := cmp.Diff(want, o.Assignments[0].Stop); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestStopReason: a stop that was decided without a word still tells its workers why.
func TestStopReason(t *testing.T) {
	t.Parallel()
	for cause, want := range map[cluster.StopCause]string{
		cluster.StopPreempt: "another job needs the GPUs", cluster.StopResize: "more or fewer GPUs",
		cluster.StopMove: "elsewhere", cluster.StopDrain: "node is being emptied", cluster.StopTimeLimit: "asked to stop",
	} {
		st := gang(t, "a/0")
		st.became(t, cluster.WorkerRunning, 0, 0)
		st.must(t, &cluster.EvictJob{Job: 1, Epoch: 1, Cause: cause})
		got := orderOf(t, st, "a").Assignments[0].Stop
		if got == nil || !strings.Contains(got.Reason, want) {
			t.Errorf("cause %d: the workers are told %v, want %q", cause, got, want)
		}
	}
}

func TestAcknowledged(t *testing.T) {
	t.Parallel()
	st := gang(t, "a/0", "a/1")
	st.became(t, cluster.WorkerRunning, 0, 0, 1)
	check := func(why string, w WorkerStatus, want bool) {
		t.Helper()
		if acked := len(orderOf(t, st, "a", w).Acknowledged) == 1; acked != want {
			t.Errorf("%s: acknowledged %t", why, acked)
		}
	}
	check("a running worker has nothing to acknowledge", runs(1, 1, 0), false)
	check("not recorded yet", exited(1, 1, 0, 1), false)
	check("an epoch that the state does not know", exited(1, 2, 0, 1), false)
	check("a job that is forgotten", exited(77, 1, 0, 1), true)
	// The node is lost while its workers run, and comes back with them.
	st.must(t, &cluster.LoseNode{Node: "a", Incarnation: 1, Reason: "x"},
		&cluster.RegisterNode{Node: machine("a", 4), Running: Running([]WorkerStatus{runs(1, 1, 0), exited(1, 1, 1, 1)})})
	check("a stale worker's end is news", exited(1, 1, 0, 1), false)
	check("another's is over with its epoch", exited(1, 1, 1, 1), true)
	st.must(t, &cluster.ReportWorkers{Node: "a", Workers: []cluster.WorkerReport{{Job: 1, Epoch: 1, Rank: 0, State: cluster.WorkerExited}}})
	check("recorded", exited(1, 1, 0, 1), true)
}

// TestOrderKey: what changes a gang's orders changes its key; a worker's start does not.
func TestOrderKey(t *testing.T) {
	t.Parallel()
	if OrderKeyOf(nil) != (OrderKey{}) {
		t.Error("a job that is gone has a key")
	}
	st := gang(t, "a/0", "b/0")
	key := OrderKeyOf(st.s.Job(1))
	same := func(why string, want bool) {
		t.Helper()
		now := OrderKeyOf(st.s.Job(1))
		if (now == key) != want {
			t.Errorf("%s: the key is %v, was %v", why, now, key)
		}
		key = now
	}
	if key == (OrderKey{}) {
		t.Error("a job that starts has no key")
	}
	st.became(t, cluster.WorkerRunning, 0, 0)
	same("one worker runs", true)
	st.became(t, cluster.WorkerRunning, 0, 1)
	same("all run", true)
	st.became(t, cluster.WorkerExited, 1, 1)
	same("one failed, the others stop", false)
	st.became(t, cluster.WorkerExited, 0, 0)
	same("all have ended", false)
	if key != (OrderKey{}) {
		t.Error("a job that waits has a key")
	}
}
