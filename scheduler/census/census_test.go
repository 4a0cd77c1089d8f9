package census

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gangline/gangline/scheduler/cluster"
)

// world is a state with a clock of its own.
type world struct {
	t  testing.TB
	st cluster.State
	at cluster.Time
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, at: cluster.Time(time.Hour)}
	w.apply(&cluster.Init{ClusterID: "c", Version: cluster.Version})
	return w
}

func (w *world) apply(cmd cluster.Command) cluster.Result {
	w.t.Helper()
	res := w.st.Apply(w.st.Index()+1, w.at, cmd)
	if res.Code != cluster.OK {
		w.t.Fatalf("%T: %s", cmd, res.Message)
	}
	return res
}

func (w *world) node(name, gpuType string, gpus int) {
	w.t.Helper()
	n := cluster.Node{ID: cluster.NodeID(name), Name: name, Incarnation: 1}
	for i := range gpus {
		n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%s-%d", name, i), Type: gpuType, Healthy: true})
	}
	w.apply(&cluster.RegisterNode{Node: n})
}

func (w *world) submit(user, queue string, gpus, milli int32) cluster.JobID {
	w.t.Helper()
	spec := &cluster.JobSpec{Name: "j", Queue: queue, GPUs: gpus, GPUMilli: milli, Preemptible: true, Command: []string{"true"}}
	spec.Normalize()
	return w.apply(&cluster.SubmitJob{RequestID: fmt.Sprint(w.st.Index()), User: user, Spec: spec}).Job
}

// start gives a job the node's GPUs from the first given one on.
func (w *world) start(id cluster.JobID, node string, first int) {
	w.t.Helper()
	cmd := &cluster.StartJob{Job: id, Epoch: w.st.Job(id).Epoch + 1}
	for i := range int(w.st.Job(id).Spec.GPUs) {
		cmd.Workers = append(cmd.Workers, cluster.Placement{Rank: cluster.Rank(i), Node: cluster.NodeID(node), GPUs: []string{fmt.Sprintf("%s-%d", node, first+i)}})
	}
	w.apply(cmd)
}

func (w *world) policy(edit func(*cluster.Policy)) {
	w.t.Helper()
	p := *w.st.Policy()
	edit(&p)
	w.apply(&cluster.SetPolicy{Policy: &p, Any: true})
}

// TestTake counts a tree: what a queue holds, the queues above hold too.
func TestTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node("a", "h100", 8)
	w.node("b", "a100", 8)
	w.policy(func(p *cluster.Policy) {
		p.Queues = []cluster.QueuePolicy{
			{Path: "idle", Weight: 1000},
			{Path: "r", Weight: 1000, Quota: []cluster.TypeCount{{Type: "h100", GPUs: 3}}},
			{Path: "r-x", Weight: 1000},
			{Path: "r/v", Weight: 1000, Quota: []cluster.TypeCount{{Type: "h100", GPUs: 1}}},
		}
	})
	w.start(w.submit("ann", "r/v", 4, 0), "a", 0)
	w.start(w.submit("bob", "r", 2, 0), "b", 0)
	w.start(w.submit("bob", "r/v", 1, 500), "a", 7)
	w.submit("ann", "r/v", 8, 0)
	w.submit("cid", "r", 1, 250)
	w.at = w.at.Add(time.Hour)
	got := Take(&w.st, w.at, Options{Users: 2})
	hour := int64(time.Hour / time.Millisecond)
	queue := func(path string) *cluster.QueuePolicy { return w.st.Policy().Queue(path) }
	want := &Census{Queues: []Queue{
		{Path: "idle", Policy: queue("idle")},
		{
			Path: "r", Policy: queue("r"), Held: []Amount{{"a100", 2000}, {"h100", 4500}}, HeldMilli: 6500, BorrowedMilli: 3500,
			Holding: 3, Pending: 2, PendingMilli: 8250,
			Users: []User{{"ann", 4000 * hour, 4000}, {"bob", 2500 * hour, 2500}},
		},
		{
			Path: "r/v", Policy: queue("r/v"), Held: []Amount{{"h100", 4500}}, HeldMilli: 4500, BorrowedMilli: 3500,
			Holding: 2, Pending: 1, PendingMilli: 8000,
			Users: []User{{"ann", 4000 * hour, 4000}, {"bob", 500 * hour, 500}},
		},
		{Path: "r-x", Policy: queue("r-x")},
	}}
	// An hour's use has decayed by less than a hundredth of a week's half.
	near := cmp.Comparer(func(a, b User) bool {
		return a.Name == b.Name && a.HeldMilli == b.HeldMilli && a.UsedMilli > b.UsedMilli*98/100 && b.UsedMilli > a.UsedMilli*98/100
	})
	if diff := cmp.Diff(want, got, near, cmpopts.EquateEmpty()); diff != "" {
		t.Fatal(diff)
	}
	part := Take(&w.st, w.at, Options{Queue: "r/v"})
	if len(part.Queues) != 1 || part.Queues[0].Path != "r/v" || part.Queues[0].BorrowedMilli != 3500 || len(part.Queues[0].Users) != 0 {
		t.Fatalf("%+v", part)
	}
}

// TestWithoutPolicy: queues that only jobs name are there, with those above
// them, and nothing is borrowed where nothing is promised.
func TestWithoutPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node("a", "h100", 8)
	w.start(w.submit("ann", "x/y", 4, 0), "a", 0)
	got := Take(&w.st, 0, Options{})
	held := []Amount{{"h100", 4000}}
	want := &Census{Queues: []Queue{{Path: "x", Held: held, HeldMilli: 4000, Holding: 1}, {Path: "x/y", Held: held, HeldMilli: 4000, Holding: 1}}}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatal(diff)
	}
}

// TestReasons: what differs only in the GPUs asked for is one reason.
func TestReasons(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, gpus := range []int32{2, 4, 4, 1, 8} {
		id := w.submit("ann", []string{"a", "a", "a", "a/b", "c"}[i], gpus, 0)
		reason := fmt.Sprintf("waits for quota of queue a for %s: it is not preemptible", w.st.Job(id).Spec.Wants())
		if i >= 3 {
			reason = fmt.Sprintf("of its own %d", i)
		}
		w.apply(&cluster.ExplainJob{Job: id, Reason: reason})
	}
	quota := Reason{Text: "waits for quota of queue a for their GPUs: it is not preemptible", Jobs: 3, Milli: 10_000, First: 1}
	own := Reason{Text: "of its own 3", Jobs: 1, Milli: 1000, First: 4}
	other := Reason{Text: "of its own 4", Jobs: 1, Milli: 8000, First: 5}
	for name, c := range map[string]struct {
		opt  Options
		want *Census
	}{
		"all":         {Options{Reasons: 9}, &Census{Reasons: []Reason{quota, other, own}}},
		"the rest":    {Options{Reasons: 1}, &Census{Reasons: []Reason{quota}, Others: Reason{Jobs: 2, Milli: 9000, First: 4}}},
		"none":        {Options{}, &Census{}},
		"of a branch": {Options{Reasons: 9, Queue: "a"}, &Census{Reasons: []Reason{quota, own}}},
	} {
		got := Take(&w.st, 0, c.opt)
		if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Census{}, "Queues"), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// BenchmarkTake counts 100,000 pending jobs in 500 queues.
func BenchmarkTake(b *testing.B) {
	w := newWorld(b)
	for i := range 100_000 {
		w.submit(fmt.Sprintf("u%d", i%500), fmt.Sprintf("q%d/p%d", i%50, i%500), int32(1+i%64), 0)
	}
	for b.Loop() {
		Take(&w.st, w.at, Options{Users: 5, Reasons: 20})
	}
}
