package planner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// failer is what a world needs of a test: *testing.T and *rapid.T are ones.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is a cluster in which tests let things happen, with an index that
// follows it. Apply must accept all that it is given, and Check must hold.
type world struct {
	t      failer
	s      *cluster.State
	x      *Index
	index  uint64
	now    cluster.Time
	cfg    Config
	serial int
	evicts int
	plain  bool // jobs are neither elastic nor of arrays, and of one priority
}

func newWorld(t failer, p *cluster.Policy) *world {
	w := &world{t: t, s: &cluster.State{}, x: &Index{}, now: cluster.Time(1000 * time.Hour), cfg: DefaultConfig()}
	w.apply(&cluster.Init{ClusterID: "c", Version: cluster.Version})
	if p != nil {
		w.apply(&cluster.SetPolicy{Policy: p, Any: true})
	}
	return w
}

func (w *world) try(c cluster.Command) cluster.Result {
	w.index++
	r := w.s.Apply(w.index, w.now, c)
	if err := w.s.Check(); err != nil {
		w.t.Helper()
		w.t.Fatalf("after %T: %v", c, err)
	}
	return r
}

func (w *world) apply(c cluster.Command) cluster.Result {
	w.t.Helper()
	r := w.try(c)
	if r.Code != cluster.OK {
		w.t.Fatalf("%T %+v: %s", c, c, r.Message)
	}
	return r
}

// machine is a node with GPUs of one type, of a rack if that is named.
func machine(name string, gpus int, gpuType, rack string) cluster.Node {
	n := cluster.Node{ID: cluster.NodeID(name), Name: name, Incarnation: 1, Host: name, CPUMilli: 64_000, MemBytes: 1 << 40}
	if rack != "" {
		n.Labels = []cluster.Label{{Key: "topology.gangline.dev/rack", Value: rack}}
	}
	for g := range gpus {
		n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%s/%d", name, g), Type: gpuType, Healthy: true, Island: int32(g / 2), NUMA: int32(g / 3)})
	}
	return n
}

func (w *world) join(n cluster.Node) {
	w.t.Helper()
	w.apply(&cluster.RegisterNode{Node: n})
}

// spec is a preemptible job of one user, to be changed by the caller.
func spec(queue string, gpus int32) *cluster.JobSpec {
	return &cluster.JobSpec{
		Name: "j", Queue: queue, GPUs: gpus, Launch: cluster.LaunchPerNode, Command: []string{"x"}, Priority: 50, Preemptible: true,
	}
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// plan lets the index follow and plan.
func (w *world) plan(thorough bool) Plan {
	w.x.Follow(w.s)
	return w.x.Plan(w.now, w.cfg, thorough)
}

// turn plans thoroughly and enacts the plan.
func (w *world) turn() Plan {
	w.t.Helper()
	p := w.plan(true)
	w.enact(&p)
	return p
}

// enact applies a plan as scheduler/control proposes it. All of it must be accepted.
func (w *world) enact(p *Plan) {
	w.t.Helper()
	for _, e := range p.Evicts {
		w.apply(&cluster.EvictJob{Job: e.Job, Epoch: e.Epoch, Cause: e.Cause, Reason: e.Reason})
		if e.Cause == cluster.StopPreempt {
			w.evicts++
		}
	}
	for _, st := range p.Starts {
		w.apply(&cluster.StartJob{Job: st.Job, Epoch: st.Epoch, Workers: st.Workers})
		w.mayHold(w.s.Job(st.Job))
	}
	for _, k := range p.Keeps {
		w.apply(&cluster.KeepNodes{Job: k.Job, Nodes: k.Nodes, At: k.At})
	}
	for _, r := range p.Reasons {
		w.apply(&cluster.ExplainJobs{Jobs: r.Jobs, Reason: r.Text})
	}
}

// report says the same of all workers of a job that have not ended.
func (w *world) report(id cluster.JobID, st cluster.WorkerState, code int32) {
	w.t.Helper()
	j := w.s.Job(id)
	for _, k := range slices.Clone(j.Workers) {
		if !k.State.Ended() {
			w.apply(&cluster.ReportWorkers{Node: k.Node, Workers: []cluster.WorkerReport{{Job: id, Epoch: j.Epoch, Rank: k.Rank, State: st, ExitCode: code}}})
		}
	}
}

// runAll lets all processes start, end lets one job succeed, and obey lets what
// was asked to stop be gone.
func (w *world) runAll() {
	w.t.Helper()
	for _, id := range w.ids(cluster.Starting) {
		w.report(id, cluster.WorkerRunning, 0)
	}
}

func (w *world) end(id cluster.JobID) {
	w.t.Helper()
	w.report(id, cluster.WorkerExited, 0)
}

func (w *world) obey() {
	w.t.Helper()
	for _, id := range w.ids(cluster.Stopping) {
		w.report(id, cluster.WorkerExited, 0)
	}
}

// ids lists the jobs of some states.
func (w *world) ids(states ...cluster.JobState) []cluster.JobID {
	var ids []cluster.JobID
	w.s.EachJob(func(j *cluster.Job) bool {
		if slices.Contains(states, j.State) {
			ids = append(ids, j.ID)
		}
		return true
	})
	return ids
}

// held counts the milli-GPUs that jobs hold for which keep is true.
func (w *world) held(keep func(j *cluster.Job, gpuType string) bool) int64 {
	sum := int64(0)
	w.s.EachHolding(func(j *cluster.Job) bool {
		if keep(j, w.typeOf(j)) {
			sum += int64(j.Held()) * int64(j.Spec.Share())
		}
		return true
	})
	return sum
}

// mayHold fails unless a job that has just started is within all limits, within
// its array's bound, and within quota if it must not borrow.
func (w *world) mayHold(j *cluster.Job) {
	w.t.Helper()
	p, gpuType := w.s.Policy(), w.typeOf(j)
	covered, promised := false, false
	firm := func(path, gpuType string) int64 {
		return w.held(func(o *cluster.Job, t string) bool {
			return !o.Spec.Preemptible && within(o.Spec.Queue, path) && (gpuType == "" || gpuType == t)
		})
	}
	for i := range p.Queues {
		promised = promised || len(p.Queues[i].Quota) > 0
	}
	for path := j.Spec.Queue; path != ""; path = cluster.ParentQueue(path) {
		q := p.Queue(path)
		if q == nil {
			continue
		}
		all := w.held(func(o *cluster.Job, _ string) bool { return within(o.Spec.Queue, path) })
		typed := w.held(func(o *cluster.Job, t string) bool { return within(o.Spec.Queue, path) && t == gpuType })
		mine := w.held(func(o *cluster.Job, _ string) bool { return within(o.Spec.Queue, path) && o.User == j.User })
		if l, ok := cluster.CountOf(q.Limit, ""); ok && all > l*cluster.WholeGPU {
			w.t.Fatalf("job %d started: queue %s holds %d milli-GPUs, its limit is %d", j.ID, path, all, l)
		}
		if l, ok := cluster.CountOf(q.Limit, gpuType); ok && typed > l*cluster.WholeGPU {
			w.t.Fatalf("job %d started: queue %s holds %d milli-GPUs of type %s, its limit is %d", j.ID, path, typed, gpuType, l)
		}
		if q.UserLimit > 0 && mine > q.UserLimit*cluster.WholeGPU {
			w.t.Fatalf("job %d started: user %s holds %d milli-GPUs in queue %s, the limit is %d", j.ID, j.User, mine, path, q.UserLimit)
		}
		if n, ok := cluster.CountOf(q.Quota, ""); ok {
			covered = covered || firm(path, "") <= n*cluster.WholeGPU
		}
		if n, ok := cluster.CountOf(q.Quota, gpuType); ok {
			covered = covered || firm(path, gpuType) <= n*cluster.WholeGPU
		}
	}
	if promised && !covered && !j.Spec.Preemptible {
		w.t.Fatalf("job %d started: it is not preemptible, and borrows", j.ID)
	}
	if j.Spec.Array.Parallel > 0 {
		n := 0
		w.s.EachHolding(func(o *cluster.Job) bool {
			if o.Array == j.Array {
				n++
			}
			return true
		})
		if n > int(j.Spec.Array.Parallel) {
			w.t.Fatalf("job %d started: %d members of its array hold GPUs, at most %d may", j.ID, n, j.Spec.Array.Parallel)
		}
	}
}

// typeOf is the type of the GPUs that a job holds.
func (w *world) typeOf(j *cluster.Job) string {
	n := w.s.Node(j.Workers[0].Node)
	return n.GPUs[n.FindGPU(j.Workers[0].GPUs[0])].Type
}

func within(queue, top string) bool {
	return queue == top || strings.HasPrefix(queue, top+"/")
}

// Paths and users of random worlds.
var (
	paths = []string{"a", "a/x", "a/y", "b", "b/z", "c"}
	users = []string{"ann", "bob"}
)

// drawPolicy draws a policy that Apply takes.
func drawPolicy(t *rapid.T, gpus int64) *cluster.Policy {
	p := cluster.DefaultPolicy()
	p.Order = rapid.SampledFrom([]cluster.OrderName{cluster.OrderGangline, cluster.OrderGangline, cluster.OrderFIFO, cluster.OrderLAS, cluster.OrderQSSF}).Draw(t, "order")
	p.Preemption.Off = rapid.IntRange(0, 5).Draw(t, "preemption") == 0
	p.Preemption.MinRuntime = time.Duration(rapid.IntRange(0, 2).Draw(t, "min_runtime")) * 5 * time.Minute
	p.Backfill.Off = rapid.IntRange(0, 9).Draw(t, "backfill") == 0
	p.Backfill.Reserve = int32(rapid.IntRange(0, 4).Draw(t, "reserve"))
	p.Defrag.On = rapid.IntRange(0, 3).Draw(t, "defrag") == 0
	if rapid.IntRange(0, 4).Draw(t, "queues") == 0 {
		return p // any queue will do
	}
	p.Queues = drawQueues(t, gpus)
	return p
}

func drawQueues(t *rapid.T, gpus int64) []cluster.QueuePolicy {
	left := map[string]int64{}
	free := gpus
	var queues []cluster.QueuePolicy
	counts := func(n int64) []cluster.TypeCount {
		if rapid.Bool().Draw(t, "typed") {
			return []cluster.TypeCount{{Type: "h100", GPUs: n}}
		}
		return []cluster.TypeCount{{GPUs: n}}
	}
	promises := rapid.IntRange(0, 3).Draw(t, "promises") > 0
	for _, path := range paths {
		q := cluster.QueuePolicy{Path: path, Weight: int64(rapid.IntRange(1, 4).Draw(t, "weight")) * 500}
		room := free
		if up := cluster.ParentQueue(path); up != "" {
			room = left[up]
		}
		if most := min(room, gpus/2); promises && most > 0 && rapid.IntRange(0, 2).Draw(t, "promised") > 0 {
			n := rapid.Int64Range(1, most).Draw(t, "quota")
			q.Quota = counts(n)
			if up := cluster.ParentQueue(path); up != "" {
				left[up] -= n
				q.Quota[0].Type = typeOfQuota(queues, up)
			} else {
				free -= n
			}
			left[path] = n
		}
		if rapid.IntRange(0, 3).Draw(t, "limited") == 0 {
			q.Limit = counts(rapid.Int64Range(1, gpus).Draw(t, "limit"))
		}
		if rapid.IntRange(0, 4).Draw(t, "user-limited") == 0 {
			q.UserLimit = rapid.Int64Range(1, gpus).Draw(t, "user_limit")
		}
		queues = append(queues, q)
	}
	return queues
}

func typeOfQuota(queues []cluster.QueuePolicy, path string) string {
	for i := range queues {
		if queues[i].Path == path && len(queues[i].Quota) > 0 {
			return queues[i].Quota[0].Type
		}
	}
	return ""
}

// drawSpec draws a job of every kind that users submit.
func drawSpec(t *rapid.T, queues bool) *cluster.JobSpec {
	s := spec("default", int32(rapid.IntRange(1, 6).Draw(t, "gpus")))
	if queues {
		s.Queue = rapid.SampledFrom(paths).Draw(t, "queue")
	}
	s.Launch = rapid.SampledFrom([]cluster.LaunchMode{cluster.LaunchPerGPU, cluster.LaunchPerNode}).Draw(t, "launch")
	s.Priority = int32(rapid.SampledFrom([]int{50, 50, 50, 10, 90}).Draw(t, "priority"))
	s.Preemptible = rapid.IntRange(0, 2).Draw(t, "preemptible") > 0
	s.CPUPerGPU = int64(rapid.SampledFrom([]int{0, 0, 0, 8000, 24000}).Draw(t, "cpus"))
	s.Warn, s.Grace = 0, time.Second
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
		s.GPUs, s.GPUMilli = 1, int32(rapid.IntRange(1, 4).Draw(t, "share"))*250
	case 1, 2:
		s.MinGPUs = int32(rapid.IntRange(1, int(s.GPUs)).Draw(t, "min"))
		if s.Elastic() && rapid.Bool().Draw(t, "shrinks") {
			s.OnFailure = cluster.FailureShrinks
		}
	case 3:
		s.GPUs, s.GPUsPerNode = s.GPUs*2, 2
	case 4:
		s.Array = cluster.ArraySpec{Last: 3, Step: 1, Parallel: int32(rapid.IntRange(0, 2).Draw(t, "parallel"))}
		s.GPUs = min(s.GPUs, 2)
	}
	switch rapid.IntRange(0, 5).Draw(t, "types") {
	case 0:
		s.GPUTypes = []string{"h100"}
	case 1:
		s.GPUTypes = []string{"a100", "h100"}
	}
	switch rapid.IntRange(0, 7).Draw(t, "place") {
	case 0:
		s.Topology = cluster.TopologyWish{Level: "rack", Required: true}
	case 1:
		s.Topology = cluster.TopologyWish{Level: "rack"}
	case 2:
		s.Topology = cluster.TopologyWish{Level: "node", Required: true}
	case 3:
		s.Selector = []cluster.Label{{Key: "topology.gangline.dev/rack", Value: "r1"}}
	case 4:
		s.Tolerations = []string{"odd"}
	case 5:
		level := rapid.SampledFrom([]string{cluster.LevelIsland, cluster.LevelNUMA}).Draw(t, "part")
		s.Topology = cluster.TopologyWish{Level: level, Required: rapid.Bool().Draw(t, "part-required")}
	}
	if rapid.IntRange(0, 3).Draw(t, "limited") == 0 {
		s.TimeLimit = time.Duration(rapid.IntRange(1, 30).Draw(t, "time_limit")) * time.Minute
	}
	if rapid.IntRange(0, 5).Draw(t, "follows") == 0 {
		s.After = &cluster.Conditions{All: []cluster.Dependency{{
			Job:  cluster.JobID(rapid.IntRange(1, 40).Draw(t, "first")), //nolint:gosec // small
			Cond: cluster.Condition(rapid.IntRange(1, 3).Draw(t, "condition")),
		}}}
	}
	return s
}

// drawNodes lets some nodes of two types in two racks join.
func (w *world) drawNodes(t *rapid.T) (gpus int64) {
	for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
		n := machine(fmt.Sprintf("n%d", i), rapid.IntRange(1, 8).Draw(t, "size"), rapid.SampledFrom([]string{"h100", "h100", "a100"}).Draw(t, "type"),
			rapid.SampledFrom([]string{"r1", "r2", ""}).Draw(t, "rack"))
		if rapid.IntRange(0, 7).Draw(t, "odd") == 0 {
			n.Taints = []cluster.Taint{{Key: "odd"}}
		}
		if rapid.IntRange(0, 7).Draw(t, "sick") == 0 {
			n.GPUs[0].Healthy = false
		}
		gpus += int64(len(n.GPUs))
		w.join(n)
	}
	return gpus
}
