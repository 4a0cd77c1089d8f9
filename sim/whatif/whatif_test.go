package whatif

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/forecast"
	"github.com/gangline/gangline/scheduler/policyfile"
	"github.com/gangline/gangline/sim/trace"
)

const began = cluster.Time(1000 * time.Hour)

// town has two nodes of 8 GPUs in racks r1 and r2, ann's job in queue a on n1, bob's in queue b on n2, and one more of each
// that waits. All want 8 GPUs and have a limit of an hour; none is stopped for another.
func town(t *testing.T) *cluster.State {
	t.Helper()
	s := &cluster.State{}
	apply := func(c cluster.Command) {
		t.Helper()
		if r := s.Apply(s.Index()+1, began, c); r.Code != cluster.OK {
			t.Fatalf("%T: %s", c, r.Message)
		}
	}
	apply(&cluster.Init{ClusterID: "town", Version: cluster.Version})
	p, err := policyfile.Parse([]byte("order: fifo\npreemption: {enabled: false}\nqueues: {a: {quota: {h100: 8}}, b: {quota: {h100: 8}}}"))
	if err != nil {
		t.Fatal(err)
	}
	apply(&cluster.SetPolicy{Policy: p, Any: true})
	for _, name := range []string{"n1", "n2"} {
		n := cluster.Node{
			ID: cluster.NodeID(name), Name: name, Incarnation: 1, Host: name, CPUMilli: 64_000, MemBytes: 1 << 40,
			Labels: []cluster.Label{{Key: "topology.gangline.dev/rack", Value: strings.Replace(name, "n", "r", 1)}},
		}
		for g := range 8 {
			n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%s/%d", name, g), Type: "h100", Healthy: true})
		}
		apply(&cluster.RegisterNode{Node: n})
	}
	for i := range 4 {
		apply(&cluster.SubmitJob{RequestID: fmt.Sprint(i), User: []string{"ann", "bob"}[i%2], Spec: &cluster.JobSpec{
			Name: "j", Queue: []string{"a", "b"}[i%2], GPUs: 8, Launch: cluster.LaunchPerNode, Command: []string{"x"}, Priority: 50, TimeLimit: time.Hour, Preemptible: true,
		}})
	}
	for i := range 2 {
		id, node := cluster.JobID(i+1), cluster.NodeID(fmt.Sprint("n", i+1)) //nolint:gosec // few
		var gpus []string
		for g := range 8 {
			gpus = append(gpus, fmt.Sprintf("%s/%d", node, g))
		}
		apply(&cluster.StartJob{Job: id, Epoch: 1, Workers: []cluster.Placement{{Node: node, GPUs: gpus}}})
		apply(&cluster.ReportWorkers{Node: node, Workers: []cluster.WorkerReport{{Job: id, Epoch: 1, State: cluster.WorkerRunning}}})
	}
	return s
}

func ask(t *testing.T, s *cluster.State, changes ...Change) *Answer {
	t.Helper()
	q := DefaultQuestion()
	q.State, q.Now, q.Changes, q.Span, q.Horizon = s, began, changes, time.Hour, 10*time.Hour
	a, err := Ask(q)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ends are when the four jobs end with a change, in minutes, or "-".
func ends(a *Answer) string {
	out := map[cluster.JobID]string{}
	for _, j := range a.Jobs {
		o := j.Changed
		if a.Changed == nil {
			o = j.AsIs
		}
		if out[j.ID] = "-"; o != nil {
			out[j.ID] = fmt.Sprintf("%.0f", o.EndP50/60)
		}
	}
	return fmt.Sprintf("%s %s %s %s", out[1], out[2], out[3], out[4])
}

// TestChanges makes each kind of change and holds when the jobs end, and what there is.
// TestGained: what a job gains is when it ends, or how long it waits if nobody knows when it ends.
func TestGained(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		asIs, changed  Outlook
		gained, counts float64
	}{
		{Outlook{end: 5000, Wait: 900}, Outlook{end: 4000, Wait: 900}, 1000, 50},
		{Outlook{end: 50, Wait: 9}, Outlook{end: 70, Wait: 3}, -20, 1},
		{Outlook{end: 1e6, Wait: 3600}, Outlook{end: 1e6}, 3600, 36},
	} {
		j := &JobOutlook{AsIs: &c.asIs, Changed: &c.changed}
		if j.Gained() != c.gained || j.notable() != c.counts {
			t.Errorf("%+v and then %+v: gained %g, from %g on it counts; want %g and %g", c.asIs, c.changed, j.Gained(), j.notable(), c.gained, c.counts)
		}
	}
	if (&JobOutlook{AsIs: &Outlook{end: 7}}).Gained() != 0 {
		t.Error("a job that goes gains something")
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	s := town(t)
	hash := s.Hash()
	small, err := policyfile.Parse([]byte("order: fifo\npreemption: {enabled: false}\nqueues: {a: {}, b: {limit: {h100: 4}}}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		changes []Change
		ends    string
		gpus    int
		later   int
		sooner  int
	}{
		{"nothing", nil, "60 60 120 120", 16, 0, 0},
		{"a node", []Change{AddNodes(1, "")}, "60 60 60 120", 24, 0, 1},
		{"two nodes", []Change{AddNodes(2, "n2")}, "60 60 60 60", 32, 0, 2},
		{"no n1", []Change{DropNode("n1")}, "120 60 240 180", 8, 3, 0},
		{"no rack r1", []Change{DropRack("r1")}, "120 60 240 180", 8, 3, 0},
		{"rack for nodes", []Change{AddNodes(1, "n2"), DropRack("r1")}, "120 60 60 120", 16, 1, 1},
		{"a policy", []Change{Policy(small, "p.yaml")}, "60 60 120 -0", 16, 1, 0},
		{"a quota", []Change{Quota("b", "h100", 0), Quota("a", "h100", 16)}, "60 60 120 120", 16, 0, 0},
		{"a job less", []Change{WithoutJob(1)}, "- 60 60 120", 16, 0, 1},
	} {
		a := ask(t, s, c.changes...)
		gpus := a.AsIs.GPUs
		if a.Changed != nil {
			gpus = a.Changed.GPUs
		}
		if got := ends(a); got != c.ends || gpus != c.gpus || a.Sooner != c.sooner || a.Later != c.later {
			t.Errorf("%s: jobs end after %s min on %d GPUs, %d sooner, %d later; want %s, %d, %d, %d", c.name, got, gpus, a.Sooner, a.Later, c.ends, c.gpus, c.sooner, c.later)
		}
		wait := 1800.0
		if c.name == "a job less" {
			wait = 2400 // of the three others
		}
		if a.AsIs.Allocation != 1 || a.AsIs.AvgWait != wait || a.AsIs.FinishP90 != 7200 || a.AsIs.Unfinished != 0 || a.Basis != "limits" {
			t.Errorf("%s: as it is %+v by %s", c.name, a.AsIs, a.Basis)
		}
	}
	if s.Hash() != hash {
		t.Error("asking has changed the state")
	}
}

// TestWhoGains holds the figures of queues and users: without n1 ann's job there waits for the other node, then it is bob's
// turn, then ann's again.
func TestWhoGains(t *testing.T) {
	t.Parallel()
	a := ask(t, town(t), DropNode("n1"))
	want := map[string]*Group{
		"a": {Jobs: 2, AsIsWait: 1800, Wait: (3600 + 10800) / 2, AsIsEnd: 5400, End: (7200 + 14400) / 2},
		"b": {Jobs: 2, AsIsWait: 1800, Wait: (0 + 7200) / 2, AsIsEnd: 5400, End: (3600 + 10800) / 2},
	}
	if diff := cmp.Diff(want, a.PerQueue); diff != "" {
		t.Error(diff)
	}
	if a.Changed.Stops != 1 || a.Changed.Unfinished != 0 || a.PerUser["ann"].Jobs != 2 || a.Jobs[0].Gained() > -7199 {
		t.Errorf("%+v, %+v, first %+v", a.Changed, a.PerUser["ann"], a.Jobs[0])
	}
	var text bytes.Buffer
	if err := a.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"change: without node n1\n", "GPUs held, 1 h 00 min      100.0 %     100.0 %\n", "jobs: 0 end sooner, 3 later, 1 about as before\n"} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("got\n%swant %q", text.String(), line)
		}
	}
}

// TestMistakes: a change that cannot be made is an error that says why.
func TestMistakes(t *testing.T) {
	t.Parallel()
	s := town(t)
	for want, c := range map[string]Change{
		`there is no node n12 (did you mean "n1"?)`: DropNode("n12"), "there is no node q": AddNodes(1, "q"), "no node is in rack r9": DropRack("r9"),
		"the policy has no queue c": Quota("c", "", 8), "job 9 does not exist": WithoutJob(9),
	} {
		q := DefaultQuestion()
		q.State, q.Now, q.Changes = s, began, []Change{c}
		if _, err := Ask(q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	q := DefaultQuestion()
	q.State, q.Now, q.Progress = s, began, func(int, int) bool { return false }
	if _, err := Ask(q); !errors.Is(err, ErrStopped) {
		t.Errorf("got %v, want %v", err, ErrStopped)
	}
}

// TestComing: jobs that are yet to come are the same on both sides and in each run, and count for waits.
func TestComing(t *testing.T) {
	t.Parallel()
	s := town(t)
	jobs := []trace.Job{
		{ID: "x", Submit: 10 * time.Minute, Length: 20 * time.Minute, GPUs: 8, Milli: 1000, User: "eve", Queue: "a"},
		{ID: "y", Submit: 20 * time.Minute, Length: time.Minute, GPUs: 1, Milli: 1000, User: "eve", Queue: "nowhere"},
		{ID: "z", Submit: 90 * time.Hour, Length: time.Minute, GPUs: 1, Milli: 1000, User: "eve", Queue: "a"},
	}
	q := DefaultQuestion()
	q.State, q.Now, q.Horizon, q.Runs, q.Changes = s, began, 10*time.Hour, 3, []Change{AddNodes(2, "")}
	q.Arrivals = func() (func() (forecast.Arrival, error), error) { return Coming(trace.Slice(jobs), s), nil }
	a, err := Ask(q)
	if err != nil {
		t.Fatal(err)
	}
	eve := a.PerUser["eve"]
	if a.Coming != 1 || a.Runs != 3 || a.AsIs.Refused != 1 || a.Changed.Refused != 1 || eve == nil || eve.Jobs != 1 {
		t.Fatalf("%+v, %+v, eve %+v", a, a.AsIs, eve)
	}
	if eve.AsIsWait != 110*60 || eve.Wait != 50*60 || eve.AsIsEnd != 130*60 || eve.End != 70*60 {
		t.Errorf("eve's: %+v", eve)
	}
	again, err := Ask(q)
	if diff := cmp.Diff(a, again, cmp.AllowUnexported(Outlook{})); diff != "" || err != nil {
		t.Errorf("asked again it answers otherwise: %s%v", diff, err)
	}
	q.Arrivals = func() (func() (forecast.Arrival, error), error) {
		return func() (forecast.Arrival, error) { return forecast.Arrival{}, io.ErrUnexpectedEOF }, nil
	}
	if _, err := Ask(q); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want the error of reading", err)
	}
}

// TestTooMuchWork: with little work it looks less far, equally far on both sides, and says so.
func TestTooMuchWork(t *testing.T) {
	t.Parallel()
	q := DefaultQuestion()
	q.State, q.Now, q.Changes, q.Work = town(t), began, []Change{AddNodes(1, "")}, 1500
	a, err := Ask(q)
	if err != nil || !a.Partial || a.Ahead <= 0 || a.Ahead >= q.Horizon.Seconds() || a.Changed == nil {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestOutlineAnswersAlike: a snapshot without secrets, encoded and decoded, gives the same answer.
func TestOutlineAnswersAlike(t *testing.T) {
	t.Parallel()
	s := town(t)
	var b []byte
	_ = s.Snapshot().Outline().Encode(func(p []byte) error { b = append(b, p...); return nil })
	o, err := cluster.Decode(b, cluster.Version)
	if err != nil {
		t.Fatal(err)
	}
	want, got := ask(t, s, AddNodes(1, ""), DropRack("r2")), ask(t, o, AddNodes(1, ""), DropRack("r2"))
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Outlook{})); diff != "" {
		t.Error(diff)
	}
}

// TestLearnedLengths: once enough jobs have ended, lengths are drawn: runs differ, and in one run a job is equally long on
// both sides, so that a change which concerns nobody changes nothing.
func TestLearnedLengths(t *testing.T) {
	t.Parallel()
	s := town(t)
	now := began
	apply := func(c cluster.Command) cluster.Result {
		t.Helper()
		r := s.Apply(s.Index()+1, now, c)
		if r.Code != cluster.OK {
			t.Fatalf("%T: %s", c, r.Message)
		}
		return r
	}
	n := cluster.Node{ID: "n3", Name: "n3", Incarnation: 1, Host: "n3", CPUMilli: 64_000, MemBytes: 1 << 40, GPUs: []cluster.GPU{{UUID: "n3/0", Type: "l4", Healthy: true}}}
	apply(&cluster.RegisterNode{Node: n})
	for i := range 60 {
		id := apply(&cluster.SubmitJob{RequestID: fmt.Sprint("past", i), User: "ann", Spec: &cluster.JobSpec{
			Name: "j", Queue: "a", GPUs: 1, Launch: cluster.LaunchPerNode, Command: []string{"x"}, Priority: 50, Preemptible: true, GPUTypes: []string{"l4"},
		}}).Job
		apply(&cluster.StartJob{Job: id, Epoch: 1, Workers: []cluster.Placement{{Node: "n3", GPUs: []string{"n3/0"}}}})
		now = now.Add(time.Duration(5+i%10) * time.Second)
		apply(&cluster.ReportWorkers{Node: "n3", Workers: []cluster.WorkerReport{{Job: id, Epoch: 1, State: cluster.WorkerExited}}})
	}
	q := DefaultQuestion()
	q.State, q.Now, q.Changes = s, now, []Change{DropNode("n3")}
	a, err := Ask(q)
	if err != nil {
		t.Fatal(err)
	}
	if a.Basis != "learned" || a.Runs != 8 || len(a.Jobs) != 4 || a.Same != 4 {
		t.Errorf("%d runs by %s, %d jobs, %d as before: %+v", a.Runs, a.Basis, len(a.Jobs), a.Same, a)
	}
	differ := false
	for _, j := range a.Jobs {
		if diff := cmp.Diff(j.AsIs, j.Changed, cmp.AllowUnexported(Outlook{})); diff != "" {
			t.Errorf("job %d: %s", j.ID, diff)
		}
		differ = differ || j.AsIs.EndP90 > j.AsIs.EndP50
	}
	if !differ {
		t.Error("all runs are alike: nothing was drawn")
	}
}
