package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// submit submits a job of ann's with a fresh request.
func (f *fixture) submit(edit func(*JobSpec)) JobID {
	f.Helper()
	sp := spec(1)
	edit(sp)
	return f.ok(&SubmitJob{RequestID: fmt.Sprint("s", f.i), User: "ann", Spec: sp}).Job
}

// on starts a job with per-gpu workers on these GPUs, such as "0-2" for GPU-0-2.
func (f *fixture) on(id JobID, gpus ...string) *StartJob {
	c := &StartJob{Job: id, Epoch: f.s.Job(id).Epoch + 1}
	for i, g := range gpus {
		c.Workers = append(c.Workers, Placement{Rank: Rank(i), Node: NodeID("id-" + g[:1]), GPUs: []string{"GPU-" + g}})
	}
	return c
}

// ends reports all workers of a job as ended.
func (f *fixture) ends(id JobID, code int32) {
	f.Helper()
	for _, w := range slices.Clone(f.s.Job(id).Workers) {
		f.ok(&ReportWorkers{Node: w.Node, Workers: []WorkerReport{{Job: id, Epoch: f.s.Job(id).Epoch, Rank: w.Rank, State: WorkerExited, ExitCode: code}}})
	}
}

func TestArrays(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sp := spec(2)
	sp.Array = ArraySpec{First: 3, Last: 10, Step: 3, Parallel: 2}
	r := f.ok(&SubmitJob{RequestID: "r", Spec: sp})
	if r.Job != 1 || len(r.Changes) != 3 || f.s.Jobs() != 3 {
		t.Fatalf("an array of 3, 6, 9 made %+v, %d jobs", r, f.s.Jobs())
	}
	for i, want := range []int32{3, 6, 9} {
		if j := f.s.Job(JobID(i + 1)); j.Array != 1 || j.ArrayIndex != want || j.Spec != f.s.Job(1).Spec || j.State != Pending {
			t.Errorf("member %d is %+v", i, j)
		}
	}
	if again := f.ok(&SubmitJob{RequestID: "r", Spec: sp}); !again.Duplicate || again.Job != 1 || f.s.Jobs() != 3 {
		t.Fatalf("the same request made %+v", again)
	}
	f.ok(f.on(2, "0-0", "0-1"))
	f.ends(2, 0)
	f.want(2, Succeeded, "")
	f.want(1, Pending, "")
	single := f.submit(func(*JobSpec) {})
	if j := f.s.Job(single); single != 4 || j.Array != 0 {
		t.Fatalf("a single job after the array is %d, of array %d", single, j.Array)
	}
	for _, c := range []struct {
		a    ArraySpec
		want string
	}{
		{ArraySpec{First: 5, Last: 4, Step: 1}, "array: 5-4:1%0 is not a range"},
		{ArraySpec{Last: 4}, "array: 0-4:0%0 is not a range"},
		{ArraySpec{Last: 1, Step: -1}, "is not a range"},
		{ArraySpec{First: -1, Last: 1, Step: 1}, "is not a range"},
		{ArraySpec{Last: MaxArray, Step: 1}, "array: more than 10000 members: submit it in several parts"},
		{ArraySpec{Last: 1<<31 - 1, Step: 2}, "array: more than 10000 members"},
	} {
		sp := spec(1)
		sp.Array = c.a
		f.refused(&SubmitJob{RequestID: "x", Spec: sp}, Invalid, c.want)
	}
	most := ArraySpec{First: 1, Last: 2*MaxArray - 1, Step: 2}
	if most.Count() != MaxArray || (&ArraySpec{}).Count() != 1 {
		t.Errorf("counts are %d and %d", most.Count(), (&ArraySpec{}).Count())
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	share := func(milli int32) JobID {
		return f.submit(func(sp *JobSpec) { sp.GPUMilli, sp.CPUPerGPU = milli, 1000 })
	}
	a, b, c, whole := share(600), share(400), share(1), f.submit(func(*JobSpec) {})
	f.ok(f.on(b, "0-0"))
	f.ok(f.on(a, "0-0"))
	g := f.s.Node("id-0").GPUs[0]
	if len(g.Shares) != 2 || g.Shares[0].Job != a || g.FreeMilli() != 0 || g.Job != 0 || f.s.Node("id-0").CPUUsed != 2000 {
		t.Fatalf("two shares on one GPU: %+v", g)
	}
	f.refused(f.on(c, "0-0"), Conflict, "GPU GPU-0-0 on node n0 is not free")
	f.refused(f.on(whole, "0-0"), Conflict, "is not free")
	f.ok(f.on(whole, "0-1"))
	f.refused(f.on(c, "0-1"), Conflict, "is not free")
	if acc := f.s.Account(DefaultQueue, "ann"); acc.Rate != 2000 || f.s.Job(b).Rate != 400 {
		t.Errorf("shares of 600 and 400 and a whole GPU are charged as %+v", acc)
	}
	f.ends(a, 0)
	if n := f.s.Node("id-0"); n.GPUs[0].FreeMilli() != 600 || n.UsableMilli(0) != 600 || n.Usable(0) || n.CPUUsed != 1000 {
		t.Errorf("after one of them ended: %+v", n.GPUs[0])
	}
	f.refused(f.on(f.submit(func(*JobSpec) {}), "0-0"), Conflict, "is not free")
	f.ok(f.on(c, "0-0"))
	f.ok(&LoseNode{Node: "id-0", Incarnation: 1, Reason: "gone"})
	for _, id := range []JobID{b, c, whole} {
		f.want(id, Pending, "node n0 was lost")
	}
	if n := f.s.Node("id-0"); n.Holds() || n.GPUs[0].Shares != nil {
		t.Errorf("a lost node still holds %+v", n.GPUs)
	}
	sp := spec(2)
	sp.GPUMilli = 500
	f.refused(&SubmitJob{RequestID: "x", Spec: sp}, Invalid, "gpu_share: a gang of 2 GPUs takes whole GPUs")
	sp.GPUMilli = 1001
	f.refused(&SubmitJob{RequestID: "x", Spec: sp}, Invalid, "gpu_share: 1.001 is not in 0.001..1")
}

// A GPU with a share on it that vanishes stays until the holder has let go.
func TestSharedGPUVanishes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.submit(func(sp *JobSpec) { sp.GPUMilli = 300 })
	f.ok(f.on(id, "0-0"))
	n := gpuNode(0, 4)
	n.GPUs = n.GPUs[1:]
	f.ok(&RegisterNode{Node: n, Running: []WorkerRef{{Job: id, Epoch: 1, GPUs: []string{"GPU-0-0"}}}})
	if got := f.s.Node("id-0"); got.FindGPU("GPU-0-0") < 0 || got.UsableMilli(got.FindGPU("GPU-0-0")) != 0 {
		t.Fatalf("%+v", got.GPUs)
	}
	f.ends(id, 0)
	if got := f.s.Node("id-0"); got.FindGPU("GPU-0-0") >= 0 {
		t.Fatalf("still there: %+v", got.GPUs)
	}
}

func TestElasticSizes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.submit(func(sp *JobSpec) { sp.GPUs, sp.MinGPUs = 4, 2 })
	f.refused(f.on(id, "0-0"), Conflict, "the plan has 1 of 4 GPUs")
	f.refused(f.on(id, "0-0", "0-1", "0-2", "0-3", "1-0"), Conflict, "the plan has 5 of 4 GPUs")
	f.ok(f.on(id, "0-0", "0-1", "1-0"))
	if j := f.s.Job(id); j.Held() != 3 || j.Rate != 3000 || len(j.Workers) != 3 || j.Spec.Wants() != "2 to 4 GPUs of one type" {
		t.Fatalf("%d GPUs, charged %d: %s", j.Held(), j.Rate, j.Spec.Wants())
	}
	f.i += 10
	f.ok(&EvictJob{Job: id, Epoch: 1, Cause: StopResize, Reason: "grows to 4 GPUs"})
	f.ends(id, 0)
	j := f.want(id, Pending, "waits to start again: grows to 4 GPUs")
	if j.Attained < 3*1_000*10_000 || j.Attained != j.AttainedAt(f.s.Now().Add(time.Hour)) {
		t.Fatalf("attained %d", j.Attained)
	}
	f.ok(f.on(id, "0-0", "0-1", "1-0", "1-1"))
	now := f.s.Now().Add(time.Hour)
	if got := f.s.Job(id).AttainedAt(now.Add(time.Second)) - f.s.Job(id).AttainedAt(now); got != 4*1_000*1_000 {
		t.Fatalf("attained %d in a second with 4 GPUs", got)
	}
	rigid := f.submit(func(sp *JobSpec) { sp.GPUs, sp.MinGPUs = 2, 2 })
	f.refused(f.on(rigid, "0-2"), Conflict, "the plan has 1 of 2 GPUs")
	for _, c := range []struct {
		gpus, least, perNode int32
		want                 string
	}{{2, 3, 0, "gpus: min 3 is not in 1..max 2"}, {4, -1, 0, "gpus: min -1 is not in"}, {4, 1, 2, "gpus: gpus_per_node 2 does not divide min 1"}} {
		sp := spec(c.gpus)
		sp.MinGPUs, sp.GPUsPerNode = c.least, c.perNode
		f.refused(&SubmitJob{RequestID: "x", Spec: sp}, Invalid, c.want)
	}
	big := spec(16)
	big.MinGPUs = 8
	f.ok(&SubmitJob{RequestID: "big", Spec: big}) // larger than the cluster, but it may start with less
	big = spec(16)
	big.MinGPUs = 9
	f.refused(&SubmitJob{RequestID: "bigger", Spec: big}, NeverFits, "a gang of 9 to 16 GPUs of one type can never start here")
}

// TestStopsWithoutBlame: a job that gives its GPUs back because it was asked
// to starts again at once, and pays nothing for it.
func TestStopsWithoutBlame(t *testing.T) {
	t.Parallel()
	for cause, preempted := range map[StopCause]int32{StopPreempt: 1, StopResize: 0, StopMove: 0, StopDrain: 0} {
		f := newFixture(t)
		id := f.start(0)
		for epoch := Epoch(1); epoch <= 3; epoch++ {
			f.report(id, 0, WorkerRunning, 0)
			f.report(id, 1, WorkerRunning, 0)
			f.ok(&EvictJob{Job: id, Epoch: epoch, Cause: cause, Reason: "another comes first"})
			f.want(id, Stopping, "stops: another comes first")
			f.report(id, 0, WorkerExited, 143)
			f.report(id, 1, WorkerExited, 0)
			j := f.want(id, Pending, "waits to start again: another comes first")
			if j.Failures != 0 || j.Requeues != 0 || j.Preemptions != preempted*int32(epoch) || j.NotBefore > f.s.Now() || len(j.Avoid) != 0 || (j.PreemptedAt != 0) != (cause == StopPreempt) {
				t.Fatalf("cause %d, epoch %d: %+v", cause, epoch, j)
			}
			f.place(id)
		}
	}
	f := newFixture(t)
	id := f.start(0)
	f.refused(&EvictJob{Job: id, Epoch: 1, Cause: StopNodeLost}, Invalid, "cause 4 is not a cause of eviction")
	f.refused(&EvictJob{Job: id, Epoch: 1, Cause: StopCause(99)}, Invalid, "cause 99")
	f.refused(&EvictJob{Job: id, Epoch: 2, Cause: StopMove}, Conflict, "not to be evicted from epoch 2")
}

// A job that ends well while it is asked to stop for another starts again all
// the same: nobody knows whether it had finished.
func TestNodeLostWhilePreempted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(0)
	f.ok(&EvictJob{Job: id, Epoch: 1, Cause: StopMove, Reason: "makes room"})
	f.report(id, 0, WorkerExited, 0)
	f.ok(&LoseNode{Node: "id-1", Incarnation: 1, Reason: "gone"})
	if j := f.want(id, Pending, "makes room"); j.Requeues != 0 || j.Preemptions != 0 || len(j.Avoid) != 0 {
		t.Fatalf("%+v", j)
	}
}

// TestAvoid: a job remembers where it failed or was lost, not where its peers ran.
func TestAvoid(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(100)
	again := func() {
		f.i += 600
		f.place(id)
	}
	f.report(id, 1, WorkerExited, 3)
	f.report(id, 0, WorkerExited, 143)
	if got := f.s.Job(id).Avoid; !slices.Equal(got, []NodeID{"id-1"}) {
		t.Fatalf("after a failure on id-1: avoids %v", got)
	}
	again()
	f.ok(&LoseNode{Node: "id-0", Incarnation: 1})
	f.report(id, 1, WorkerExited, 1)
	if got := f.s.Job(id).Avoid; !slices.Equal(got, []NodeID{"id-1", "id-0"}) {
		t.Fatalf("after id-0 was lost: avoids %v", got)
	}
	n := gpuNode(0, 4)
	n.Incarnation = 2
	f.ok(&RegisterNode{Node: n})
	again()
	f.report(id, 0, WorkerRunning, 0)
	f.ok(&EvictJob{Job: id, Epoch: 3, Cause: StopLaunchStuck, Reason: "stuck"})
	f.report(id, 0, WorkerExited, 143)
	f.report(id, 1, WorkerExited, 143)
	if got := f.s.Job(id).Avoid; len(got) != 2 {
		t.Fatalf("avoids %v", got)
	}
	j := *f.s.Job(id)
	j.Stop, j.Avoid = StopFailure, nil
	for i := range MaxAvoid + 3 {
		j.Workers = []Worker{{Node: NodeID(fmt.Sprint(i)), Blamed: true}}
		f.s.avoid(&j)
	}
	if len(j.Avoid) != MaxAvoid || j.Avoid[MaxAvoid-1] != "10" {
		t.Fatalf("avoids %v, at most %d and the newest last", j.Avoid, MaxAvoid)
	}
}

func TestKeptNodes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sp := spec(2)
	id := f.ok(&SubmitJob{RequestID: "r", Spec: sp}).Job
	f.ok(&KeepNodes{Job: id, Nodes: []NodeID{"id-0", "id-1"}, At: 77})
	if k := f.s.Job(id).Kept; k == nil || len(k.Nodes) != 2 || k.At != 77 || k.Made != f.s.Now() {
		t.Fatalf("kept: %+v", k)
	}
	f.ok(&KeepNodes{Job: id})
	if f.s.Job(id).Kept != nil {
		t.Fatal("no nodes: nothing is kept")
	}
	f.ok(&KeepNodes{Job: id, Nodes: []NodeID{"id-0"}})
	f.place(id)
	if f.s.Job(id).Kept != nil {
		t.Fatal("what is kept is not cleared by the start")
	}
	f.refused(&KeepNodes{Job: id, Nodes: []NodeID{"id-0"}}, Conflict, "job 1 is not pending")
	f.refused(&KeepNodes{Job: 99}, Conflict, "job 99 is not pending")
	f.refused(&KeepNodes{Job: f.submit(func(*JobSpec) {}), Nodes: make([]NodeID, MaxGPUs+1)}, Invalid, "16385 nodes are kept")
	gone := f.submit(func(*JobSpec) {})
	f.ok(&KeepNodes{Job: gone, Nodes: []NodeID{"id-0"}})
	f.ok(&CancelJob{Job: gone})
	if f.s.Job(gone).Kept != nil {
		t.Fatal("a cancelled job still keeps nodes")
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	running := f.submit(func(*JobSpec) {})
	f.ok(f.on(running, "0-0"))
	f.ok(&DrainNode{Node: "id-0", Reason: "fan", By: "root", Deadline: 99})
	since := f.s.Now()
	if d := f.s.Node("id-0").Drain; d == nil || d.Reason != "fan" || d.By != "root" || d.Since != since || d.Deadline != 99 {
		t.Fatalf("drain: %+v", d)
	}
	f.want(running, Starting, "")
	f.refused(f.on(f.submit(func(*JobSpec) {}), "0-1"), Conflict, "GPU GPU-0-1 on node n0 is not free")
	f.ok(&DrainNode{Node: "id-0", Reason: "fan and disk"})
	if d := f.s.Node("id-0").Drain; d.Since != since || d.Deadline != 0 || d.Reason != "fan and disk" {
		t.Fatalf("a second order replaces the first but for its begin: %+v", d)
	}
	f.ok(&RegisterNode{Node: gpuNode(0, 4), Running: []WorkerRef{{Job: running, Epoch: 1, GPUs: []string{"GPU-0-0"}}}})
	if f.s.Node("id-0").Drain == nil {
		t.Fatal("an agent that registers anew ends the drain")
	}
	f.ok(&DrainNode{Node: "id-0", Off: true})
	f.ok(f.on(f.submit(func(*JobSpec) {}), "0-1"))
	if r := f.ok(&DrainNode{Node: "id-0", Off: true}); len(r.Changes) != 0 {
		t.Fatal("ending a drain that is over changes something")
	}
	f.refused(&DrainNode{Node: "id-9"}, NotFound, "node id-9 is not registered")
	f.refused(&DrainNode{Node: "id-0", Deadline: -1}, Invalid, "deadline")
}

func TestExplainJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.submit(func(*JobSpec) {}), f.submit(func(*JobSpec) {})
	f.ok(f.on(b, "0-0"))
	if r := f.ok(&ExplainJobs{Jobs: []JobID{a, b, 99, a}, Reason: "waits for quota"}); len(r.Changes) != 1 || r.Changes[0].Job != a {
		t.Fatalf("changes %+v", r.Changes)
	}
	f.want(a, Pending, "waits for quota")
	f.want(b, Starting, "starts")
	if r := f.ok(&ExplainJobs{Jobs: []JobID{a}, Reason: "waits for quota"}); len(r.Changes) != 0 {
		t.Fatal("the same reason again is a change")
	}
	f.refused(&ExplainJobs{Jobs: make([]JobID, maxExplained+1)}, Invalid, "4097 jobs are explained at once, at most 4096")
}

// TestPlacesAreChecked: labels, taints and required levels hold at the start,
// whatever the plan says.
func TestPlacesAreChecked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i, rack := range []string{"r1", "r2"} {
		n := gpuNode(i, 4)
		n.Labels = []Label{{"topology.gangline.dev/block", "b"}, {"topology.gangline.dev/rack", rack}}
		if i == 1 {
			n.Taints = []Taint{{"owner", "nlp"}}
		}
		f.ok(&RegisterNode{Node: n})
	}
	anyone := f.submit(func(*JobSpec) {})
	f.refused(f.on(anyone, "1-0"), Conflict, "node n1 is not for the job, which needs a toleration of taint owner=nlp")
	f.ok(f.on(f.submit(func(sp *JobSpec) { sp.Tolerations = []string{"owner"} }), "1-0"))
	f.ok(f.on(f.submit(func(sp *JobSpec) { sp.Tolerations = []string{"owner=nlp"} }), "1-1"))
	f.refused(f.on(f.submit(func(sp *JobSpec) { sp.Tolerations = []string{"owner=cv"} }), "1-2"), Conflict, "toleration")
	r1 := f.submit(func(sp *JobSpec) { sp.Selector = []Label{{"topology.gangline.dev/rack", "r1"}} })
	f.refused(f.on(r1, "1-2"), Conflict, "needs label topology.gangline.dev/rack=r1")
	f.ok(f.on(r1, "0-0"))
	wish := func(level string, required bool) JobID {
		return f.submit(func(sp *JobSpec) {
			sp.GPUs, sp.Topology, sp.Tolerations = 2, TopologyWish{Level: level, Required: required}, []string{"owner"}
		})
	}
	f.refused(f.on(wish("rack", true), "0-1", "1-2"), Conflict, "nodes n0 and n1 are not in one rack")
	f.refused(f.on(wish("node", true), "0-1", "1-2"), Conflict, "not in one node")
	f.ok(f.on(wish("rack", false), "0-1", "1-2"))
	f.ok(f.on(wish("block", true), "0-2", "1-3"))
	p, n := f.s.Policy(), f.s.Node("id-0")
	if got := []string{p.Domain(n, "rack"), p.Domain(n, "block"), p.Domain(n, "node"), p.Domain(n, "moon"), p.Domain(&Node{}, "rack")}; !slices.Equal(got, []string{"b/r1", "b", "id-0", "", ""}) {
		t.Errorf("domains %q", got)
	}
	none := spec(1)
	none.Selector = []Label{{"zone", "x"}}
	f.refused(&SubmitJob{RequestID: "x", Spec: none}, NeverFits, "0 with the CPUs, memory, shape and labels asked for")
}
