package fleet

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// sled drives a state, an index that follows it, and the plain second opinion.
type sled struct {
	t      *rapid.T
	s      *cluster.State
	fast   *Fleet
	slow   *slow
	mix    []MixItem
	churn  int32
	holds  map[cluster.NodeID][]Hold
	serial int
	now    cluster.Time
	cursor cluster.Cursor
}

func newSled(t *rapid.T) *sled {
	score := rapid.SampledFrom([]cluster.ScoreName{cluster.ScoreBestFit, cluster.ScoreFGD, cluster.ScoreGangline, cluster.ScoreConsolidated}).Draw(t, "score")
	levels := cluster.DefaultPolicy().Levels
	w := &sled{t: t, s: &cluster.State{}, fast: New(score, levels), slow: newSlow(levels), holds: map[cluster.NodeID][]Hold{}, now: 1}
	w.apply(&cluster.Init{ClusterID: "c", Version: cluster.Version})
	w.cursor = w.s.Cursor()
	w.tellMix()
	return w
}

// tellMix draws a mix of requests and tells it to both.
func (w *sled) tellMix() {
	var mix []MixItem
	for range w.int("mix", 0, 6) {
		m := MixItem{GPUs: int32(w.int("gpus", 0, 9)), Share: 1000, CPU: int64(w.int("cpu", 0, 3)) * 1000, Mem: int64(w.int("mem", 0, 2)) << 30, Weight: int64(w.int("weight", 1, 9))}
		if m.GPUs == 1 {
			m.Share = int32(rapid.SampledFrom([]int{100, 250, 333, 500, 810, 1000}).Draw(w.t, "share"))
		}
		m.Types = rapid.SampledFrom([][]string{nil, {"a100"}}).Draw(w.t, "types")
		mix = append(mix, m)
	}
	w.mix, w.churn = mix, int32(w.int("churn", 0, 1000))
	w.fast.SetMix(w.mix, w.churn)
	w.slow.roomy = w.fast.score == cluster.ScoreConsolidated
	w.slow.scorer, w.slow.byID = nil, w.fast.score == cluster.ScoreFGD
	w.fast.settle()
	if w.fast.scorer(&pool{width: 1}) != nil {
		w.slow.scorer = func(gpuType string) (scorer, int64, int64) {
			sc := w.fast.scorer(w.fast.pool(gpuType))
			if o, ok := sc.(*outlook); ok {
				return sc, o.cpuStep, o.memStep
			}
			return sc, 1, 1
		}
	}
}

func (w *sled) int(name string, from, to int) int { return rapid.IntRange(from, to).Draw(w.t, name) }

func (w *sled) apply(c cluster.Command) cluster.Result {
	w.now++
	return w.s.Apply(uint64(w.now), w.now, c)
}

func (w *sled) nodeID() cluster.NodeID {
	return cluster.NodeID(fmt.Sprintf("n%d", w.int("node", 0, 9)))
}

// register draws a node, new or changed.
func (w *sled) register() {
	id := w.nodeID()
	n := cluster.Node{ID: id, Name: "host-" + string(id), CPUMilli: int64(w.int("cpus", 2, 12)) * 1000, MemBytes: int64(w.int("mem", 2, 12)) << 30, Incarnation: 1 << 20}
	types := rapid.SampledFrom([][]string{{"h100"}, {"h100"}, {"a100"}, {"h100", "a100"}, {"h100-1g.10gb"}, {"h100", "h100-1g.10gb"}}).Draw(w.t, "types")
	for g := range w.int("gpus", 1, 6) {
		n.GPUs = append(n.GPUs, cluster.GPU{
			UUID: fmt.Sprintf("%s/%d", id, g), Type: types[g%len(types)], Healthy: w.int("sick", 0, 9) > 0, Island: int32(w.int("island", 0, 1)), NUMA: int32(w.int("numa", -1, 1)),
		})
	}
	if w.int("racked", 0, 5) > 0 {
		n.Labels = append(n.Labels, cluster.Label{Key: "topology.gangline.dev/block", Value: fmt.Sprint(w.int("block", 0, 1))})
		n.Labels = append(n.Labels, cluster.Label{Key: "topology.gangline.dev/rack", Value: fmt.Sprint(w.int("rack", 0, 2))})
	}
	if w.int("labelled", 0, 3) == 0 {
		n.Labels = append(n.Labels, cluster.Label{Key: "zone", Value: "a"})
	}
	if w.int("tainted", 0, 5) == 0 {
		n.Taints = []cluster.Taint{{Key: "dev", Value: "x"}}
	}
	w.apply(&cluster.RegisterNode{Node: n})
}

func (w *sled) drawSpec() *cluster.JobSpec {
	w.serial++
	spec := &cluster.JobSpec{
		Name: "j", Queue: rapid.SampledFrom([]string{"a", "a/b", "ab"}).Draw(w.t, "queue"), Command: []string{"x"},
		Launch: rapid.SampledFrom([]cluster.LaunchMode{1, 2}).Draw(w.t, "launch"), GPUs: int32(w.int("want", 1, 14)),
		CPUPerGPU: int64(rapid.SampledFrom([]int{0, 0, 1000, 2000}).Draw(w.t, "cpu")), MemPerGPU: int64(rapid.SampledFrom([]int{0, 0, 1 << 30}).Draw(w.t, "mem")),
	}
	spec.GPUTypes = rapid.SampledFrom([][]string{nil, nil, {"h100"}, {"a100", "h100"}, {"b200", "h100"}, {"h100-1g.10gb"}}).Draw(w.t, "types")
	switch w.int("kind", 0, 5) {
	case 0:
		spec.GPUs, spec.GPUMilli = 1, int32(rapid.SampledFrom([]int{100, 250, 500, 810}).Draw(w.t, "share"))
	case 1:
		spec.GPUsPerNode = int32(w.int("per node", 1, 3))
		spec.GPUs = spec.GPUsPerNode * int32(w.int("nodes", 1, 4))
	case 2:
		spec.MinGPUs = int32(w.int("least", 1, int(spec.GPUs)))
	}
	if w.int("wish", 0, 1) == 0 {
		spec.Topology.Level = rapid.SampledFrom([]string{"rack", "block", "node", "hall", "island", "numa"}).Draw(w.t, "level")
		spec.Topology.Required = rapid.Bool().Draw(w.t, "required")
	}
	if w.int("selects", 0, 5) == 0 {
		spec.Selector = []cluster.Label{{Key: "zone", Value: "a"}}
	}
	if w.int("bears", 0, 2) == 0 {
		spec.Tolerations = []string{"dev"}
	}
	return spec
}

func (w *sled) drawQuery(spec *cluster.JobSpec) Query {
	q := Query{Job: cluster.JobID(w.int("asker", 1, 4)), Queue: spec.Queue, End: cluster.Time(w.int("end", 0, 4) * 100), Any: w.int("any", 0, 5) == 0}
	for range w.int("avoids", 0, 2) {
		q.Avoid = append(q.Avoid, w.nodeID())
	}
	q.Types = rapid.SampledFrom([][]string{nil, nil, nil, {"a100"}, {"h100", "a100"}}).Draw(w.t, "only")
	return q
}

// follow takes what the state has changed into both.
func (w *sled) follow() {
	changes, known := w.s.ChangesSince(w.cursor)
	if !known { // nothing had changed yet when the cursor was taken
		w.s.EachNode(func(n *cluster.Node) bool {
			changes = append(changes, cluster.Change{Node: n.ID})
			return true
		})
	}
	w.cursor = w.s.Cursor()
	for _, c := range changes {
		if c.Node == "" {
			continue
		}
		if n := w.s.Node(c.Node); n != nil {
			grew, _ := w.fast.Put(n)
			if w.slow.Put(n) && !grew {
				w.t.Fatalf("Put did not tell that more is free on %s", n.ID)
			}
		} else {
			w.fast.Drop(c.Node)
			w.slow.Drop(c.Node)
			delete(w.holds, c.Node)
		}
	}
}

// step changes the cluster in one way.
func (w *sled) step() {
	switch w.int("step", 0, 10) {
	case 10:
		w.tellMix()
	case 0, 1:
		w.register()
	case 2:
		w.apply(&cluster.LoseNode{Node: w.nodeID(), Incarnation: 1 << 20, Reason: "gone"})
	case 3:
		w.apply(&cluster.ForgetNode{Node: w.nodeID()})
	case 4:
		w.apply(&cluster.DrainNode{Node: w.nodeID(), Reason: "r", By: "me", Off: w.int("off", 0, 2) > 0})
	case 5:
		w.hold()
	case 6:
		w.end()
	default:
		w.start()
	}
	w.follow()
}

func (w *sled) hold() {
	id := w.nodeID()
	if w.s.Node(id) == nil {
		return
	}
	var holds []Hold
	for range w.int("holds", 0, 2) {
		h := Hold{At: cluster.Time(w.int("at", 0, 3) * 100)}
		switch w.int("holder", 0, 2) {
		case 0:
			h.Job = cluster.JobID(w.int("for", 1, 4))
		case 1:
			h.Queue = rapid.SampledFrom([]string{"a", "a/b"}).Draw(w.t, "queue")
		}
		holds = append(holds, h)
	}
	w.holds[id] = holds
	w.fast.SetHolds(id, holds)
	w.slow.SetHolds(id, holds)
}

// end ends one of the jobs that hold GPUs.
func (w *sled) end() {
	j := w.drawHolder()
	if j == nil {
		return
	}
	for _, p := range j.Workers {
		w.apply(&cluster.ReportWorkers{Node: p.Node, Workers: []cluster.WorkerReport{{Job: j.ID, Epoch: j.Epoch, Rank: p.Rank, State: cluster.WorkerExited}}})
	}
}

func (w *sled) drawHolder() *cluster.Job {
	var all []*cluster.Job
	w.s.EachHolding(func(j *cluster.Job) bool {
		all = append(all, j)
		return true
	})
	if len(all) == 0 {
		return nil
	}
	return rapid.SampledFrom(all).Draw(w.t, "holder")
}

// start submits a job and starts it where the index says.
func (w *sled) start() {
	spec := w.drawSpec()
	q := w.drawQuery(spec)
	sh := w.fast.Shape(spec)
	size := sh.GPUs
	if sh.Least < sh.GPUs {
		size = w.fast.Most(sh, &q)
		if size < sh.Least {
			return
		}
	}
	r := w.apply(&cluster.SubmitJob{RequestID: fmt.Sprint(w.serial), Spec: spec})
	if r.Code != cluster.OK {
		return
	}
	parts := w.fast.Place(sh, size, &q)
	if diff := cmp.Diff(w.slow.Place(sh, size, &q), parts, cmpopts.IgnoreUnexported(Part{})); diff != "" {
		w.t.Fatalf("%s %+v as %d: the index chooses otherwise than plain loops:\n%s", spec.Wants(), q, size, diff)
	}
	if parts == nil {
		return
	}
	workers := w.fast.Workers(nil, parts, spec.Launch)
	if r := w.apply(&cluster.StartJob{Job: r.Job, Epoch: 1, Workers: workers}); r.Code != cluster.OK {
		w.t.Fatalf("the state refuses the placement of %s: %s\n%v", spec.Wants(), r.Message, workers)
	}
	if err := w.s.Check(); err != nil {
		w.t.Fatal(err)
	}
}

// anew is an index built from the state at once.
func (w *sled) anew() *Fleet {
	f := New(w.fast.score, w.fast.policy.Levels)
	f.SetMix(w.mix, w.churn)
	w.s.EachNode(func(n *cluster.Node) bool {
		f.Put(n)
		f.SetHolds(n.ID, w.holds[n.ID])
		return true
	})
	return f
}

// ask compares what all say to one request, and goes back.
func (w *sled) ask() {
	spec := w.drawSpec()
	q := w.drawQuery(spec)
	anew := w.anew()
	sh, other := w.fast.Shape(spec), anew.Shape(spec)
	if sh != w.fast.Shape(spec) {
		w.t.Fatal("equal requests have two shapes")
	}
	before := dump(w.fast)
	m, s := w.fast.Mark(), w.slow.Mark()
	if w.int("pretends", 0, 2) == 0 {
		if j := w.drawHolder(); j != nil {
			w.fast.Give(j)
			w.slow.Give(j)
			anew.Give(j)
		}
	}
	if rapid.Bool().Draw(w.t, "nested") { // what is tried and undone leaves no trace
		inner := w.fast.Mark()
		w.fast.Place(w.fast.Shape(w.drawSpec()), 1, &Query{Any: true})
		w.fast.Undo(inner)
	}
	most := w.fast.Most(sh, &q)
	if want := w.slow.Most(sh, &q); most != want {
		w.t.Fatalf("%s: most is %d, want %d", spec.Wants(), most, want)
	}
	size := sh.GPUs
	if size > most && most > 0 && rapid.Bool().Draw(w.t, "largest") {
		size = most
	}
	may := w.fast.May(sh, size)
	why := w.fast.Why(sh, size, &q)
	got, want := w.fast.Place(sh, size, &q), w.slow.Place(sh, size, &q)
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Part{})); diff != "" {
		w.t.Fatalf("%s %+v as %d: the index chooses otherwise than plain loops:\n%s", spec.Wants(), q, size, diff)
	}
	for _, gpuType := range w.slow.Types() {
		if diff := cmp.Diff(w.slow.Type(gpuType), w.fast.Type(gpuType)); diff != "" {
			w.t.Fatalf("GPUs are counted otherwise than by plain loops:\n%s", diff)
		}
	}
	if diff := cmp.Diff(got, anew.Place(other, size, &q), cmpopts.IgnoreUnexported(Part{})); diff != "" {
		w.t.Fatalf("an index built anew chooses otherwise:\n%s", diff)
	}
	if got != nil && (!may || !why.Fits()) {
		w.t.Fatalf("it fits, but May says %v and Why %q", may, why.Text(spec))
	}
	if got == nil && why.Fits() {
		w.t.Fatalf("%s %+v does not fit, but Why knows no reason: %+v", spec.Wants(), q, why)
	}
	if got == nil && size <= most {
		w.t.Fatalf("Most promises %d, but Place refuses %d", most, size)
	}
	w.fast.Undo(m)
	w.slow.Undo(s)
	if diff := cmp.Diff(before, dump(w.fast)); diff != "" {
		w.t.Fatalf("Undo leaves a trace:\n%s", diff)
	}
}

// dump is all that a fleet knows, views caught up.
func dump(f *Fleet) []string {
	f.settle()
	var out []string
	for _, x := range f.nodes {
		out = append(out, fmt.Sprint(x.is.ID, x.gpus, x.cpu, x.mem, x.dom))
		for i := range x.rooms {
			r := &x.rooms[i]
			out = append(out, fmt.Sprint(r.whole, r.holes, r.milli, r.total, r.alive, r.open))
		}
	}
	for _, p := range f.pools {
		out = append(out, fmt.Sprint(p.gpuType, p.sum, p.with, p.filled))
		for l := range p.free {
			out = append(out, fmt.Sprint(p.free[l].by, p.free[l].largest()))
		}
		v := f.view(f.Shape(&cluster.JobSpec{GPUs: 1, CPUPerGPU: 1000}).class, p)
		out = append(out, fmt.Sprint(v.room, v.total, members(&v.can)))
		for k := range v.by {
			out = append(out, fmt.Sprint(k, members(&v.by[k])))
		}
	}
	return out
}

func members(s *set) (out []int32) {
	for i := s.next(0, nil, nil); i >= 0; i = s.next(i+1, nil, nil) {
		out = append(out, i)
	}
	return out
}

// TestFleetLaws: the index chooses as plain loops do, follows all changes, takes
// back what was tried, and the state accepts all that it chooses.
func TestFleetLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newSled(t)
		for range w.int("nodes", 0, 10) {
			w.register()
		}
		w.follow()
		for range w.int("steps", 1, 30) {
			w.step()
			if rapid.Bool().Draw(t, "asks") {
				w.ask()
			}
		}
		if diff := cmp.Diff(dump(w.anew()), dump(w.fast)); diff != "" {
			t.Fatalf("following left another index than building anew:\n%s", diff)
		}
	})
}
