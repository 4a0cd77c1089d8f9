package control

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
)

// tell plays the news of node a's report, and makes sure that they are news once.
func (st *story) tell(t *testing.T, workers ...WorkerStatus) []cluster.Command {
	t.Helper()
	cmds := News(st.s, "a", workers, nil)
	st.must(t, cmds...)
	if again := News(st.s, "a", workers, nil); len(again) != 0 {
		t.Errorf("told twice: %v", again)
	}
	return cmds
}

func reported(t *testing.T, cmds []cluster.Command) []cluster.WorkerReport {
	t.Helper()
	if len(cmds) != 1 {
		t.Fatalf("got %v, want one report", cmds)
	}
	return cmds[0].(*cluster.ReportWorkers).Workers
}

func TestNews(t *testing.T) {
	t.Parallel()
	st := gang(t, "a/0", "a/1")
	if got := st.tell(t); len(got) != 0 {
		t.Errorf("workers that have not started are no news: %v", got)
	}
	if got := st.tell(t, WorkerStatus{Key: WorkerKey{1, 1, 0}}, runs(1, 2, 0), runs(7, 1, 0), runs(1, 1, 9), runs(1, 1, -1)); len(got) != 0 {
		t.Errorf("states, epochs, jobs and ranks that nobody knows are no news: %v", got)
	}
	if got := reported(t, st.tell(t, runs(1, 1, 0), runs(1, 1, 1))); len(got) != 2 {
		t.Errorf("both start: %v", got)
	}
	if got := st.s.Job(1).State; got != cluster.Running {
		t.Fatalf("the job is %s", got)
	}
	// The checkpoint must be taken though the same report ends the epoch.
	zero, one := exited(1, 1, 0, 0), exited(1, 1, 1, 0)
	zero.Checkpoint = &cluster.Checkpoint{Step: 5, Path: "/c/5", Bytes: 1}
	one.Checkpoint = &cluster.Checkpoint{Step: 4, Path: "/c/4", Bytes: 1}
	zero.Progress = &cluster.Progress{Step: 9}
	if got := st.tell(t, zero, one); len(got) != 2 {
		t.Fatalf("got %v, want a checkpoint and a report", got)
	}
	j := st.s.Job(1)
	if j.State != cluster.Succeeded || j.Checkpoint == nil || j.Checkpoint.Step != 5 {
		t.Errorf("the job is %s with checkpoint %v", j.State, j.Checkpoint)
	}
	if j.Progress == nil || j.Progress.Step != 9 {
		t.Errorf("final progress is %v", j.Progress)
	}
}

// TestLastWordIsRemembered: an end without a last word takes the one before.
func TestLastWordIsRemembered(t *testing.T) {
	t.Parallel()
	st := gang(t, "a/0", "a/1")
	st.tell(t, runs(1, 1, 0), runs(1, 1, 1))
	said := &cluster.Progress{Step: 3}
	progress := func(j cluster.JobID, e cluster.Epoch) *cluster.Progress {
		if j != 1 || e != 1 {
			t.Errorf("asked for job %d, epoch %d", j, e)
		}
		return said
	}
	got := reported(t, News(st.s, "a", []WorkerStatus{exited(1, 1, 0, 0), exited(1, 1, 1, 0)}, progress))
	if got[0].Progress != said || got[1].Progress != nil {
		t.Errorf("rank 0 said %v, rank 1 %v", got[0].Progress, got[1].Progress)
	}
}

func TestNewsOfVanishedWorkers(t *testing.T) {
	t.Parallel()
	st := gang(t, "a/0", "a/1", "b/0")
	st.became(t, cluster.WorkerRunning, 0, 0, 2)
	want := []cluster.WorkerReport{{Job: 1, Epoch: 1, Rank: 0, State: cluster.WorkerLost, Message: msgVanished}}
	if diff := cmp.Diff(want, reported(t, st.tell(t))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestNewsOfStaleWorkers: workers that the state gave up keep their GPUs from
// others until their agent says that they ended, or does not know them.
func TestNewsOfStaleWorkers(t *testing.T) {
	t.Parallel()
	st := gang(t, "a/0", "a/1")
	st.became(t, cluster.WorkerRunning, 0, 0, 1)
	both := []WorkerStatus{runs(1, 1, 0), runs(1, 1, 1)}
	st.must(t, &cluster.LoseNode{Node: "a", Incarnation: 1, Reason: "x"}, &cluster.RegisterNode{Node: machine("a", 4), Running: Running(both)})
	if got := st.tell(t, both...); len(got) != 0 {
		t.Errorf("they still run: %v", got)
	}
	node := machine("a", 4)
	if NeedsRegistration(st.s, &node, Running(both)) || !NeedsRegistration(st.s, &node, Running(both[:1])) {
		t.Error("a node is known with its stale workers, and only with all of them")
	}
	want := []cluster.WorkerReport{
		{Job: 1, Epoch: 1, Rank: 0, State: cluster.WorkerExited, ExitCode: 7},
		{Job: 1, Epoch: 1, Rank: 1, State: cluster.WorkerLost, Message: msgVanished},
	}
	if diff := cmp.Diff(want, reported(t, st.tell(t, exited(1, 1, 0, 7)))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(st.s.Node("a").Stale); n != 0 {
		t.Errorf("%d workers are stale", n)
	}
}

func TestNeedsRegistration(t *testing.T) {
	t.Parallel()
	st := gang(t, "a/2", "a/3")
	for name, c := range map[string]struct {
		edit    func(n *cluster.Node)
		running []cluster.WorkerRef
		want    bool
	}{
		"unchanged":        {func(*cluster.Node) {}, nil, false},
		"new incarnation":  {func(n *cluster.Node) { n.Incarnation++ }, nil, true},
		"moved":            {func(n *cluster.Node) { n.Address = "elsewhere" }, nil, true},
		"a GPU fell ill":   {func(n *cluster.Node) { n.GPUs[1].Healthy = false }, nil, true},
		"a GPU vanished":   {func(n *cluster.Node) { n.GPUs = n.GPUs[:3] }, nil, true},
		"a GPU more":       {func(n *cluster.Node) { n.GPUs = append(n.GPUs, cluster.GPU{UUID: "x"}) }, nil, true},
		"a label":          {func(n *cluster.Node) { n.Labels = []cluster.Label{{Key: "rack", Value: "1"}} }, nil, true},
		"a taint":          {func(n *cluster.Node) { n.Taints = []cluster.Taint{{Key: "broken"}} }, nil, true},
		"another island":   {func(n *cluster.Node) { n.GPUs[3].Island = 1 }, nil, true},
		"its own worker":   {func(*cluster.Node) {}, Running([]WorkerStatus{runs(1, 1, 0)}), false},
		"a worker too old": {func(*cluster.Node) {}, Running([]WorkerStatus{runs(1, 0, 0)}), true},
	} {
		n := machine("a", 4)
		c.edit(&n)
		if got := NeedsRegistration(st.s, &n, c.running); got != c.want {
			t.Errorf("%s: needs registration: %t", name, got)
		}
		// Whatever is not known is known once it was registered.
		fork := st.s.Snapshot()
		if r := fork.Apply(fork.Index()+1, fork.Now(), &cluster.RegisterNode{Node: n, Running: c.running}); r.Code != cluster.OK {
			t.Fatalf("%s: %s", name, r.Message)
		}
		if NeedsRegistration(fork, &n, c.running) {
			t.Errorf("%s: not known after it was registered", name)
		}
	}
}

func TestUnregistered(t *testing.T) {
	t.Parallel()
	st := gang(t, "a/0")
	if Unregistered(st.s, "a", 1) || !Unregistered(st.s, "a", 2) || !Unregistered(st.s, "c", 1) {
		t.Error("a node is registered under one incarnation of its agent")
	}
	st.must(t, &cluster.LoseNode{Node: "a", Incarnation: 1, Reason: "x"})
	if !Unregistered(st.s, "a", 1) {
		t.Error("a lost node must be registered again")
	}
}
