package planner

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// naive is a second planner in the plainest words: loops over all jobs and all
// nodes of a state, without anything kept between two looks. It knows neither
// preemption nor reservations.
type naive struct {
	s   *cluster.State
	x   *Index // for the keys of the order only
	now cluster.Time
}

// next returns the first job in order that may start, with the types that it
// may have, in order of preference.
func (n *naive) next() (*cluster.Job, []string) {
	var jobs []*cluster.Job
	n.s.EachPending(func(j *cluster.Job) bool {
		if j.NotBefore <= n.now && j.Unmet == 0 {
			jobs = append(jobs, j)
		}
		return true
	})
	slices.SortFunc(jobs, func(a, b *cluster.Job) int {
		return cmp.Or(-compareBool(!n.borrows(a), !n.borrows(b)), cmp.Compare(b.Spec.Priority, a.Spec.Priority), cmp.Compare(n.x.keyOf(a), n.x.keyOf(b)),
			cmp.Compare(a.ReadyAt, b.ReadyAt), cmp.Compare(a.ID, b.ID))
	})
	for _, j := range jobs {
		if n.arrayFull(j) {
			continue
		}
		var types []string
		for _, t := range n.typesOf(j) {
			if n.most(j, t) >= j.Spec.Least() {
				types = append(types, t)
			}
		}
		if len(types) > 0 {
			return j, types
		}
	}
	return nil, nil
}

// typesOf lists the GPU types that a job may have, preferred first.
func (n *naive) typesOf(j *cluster.Job) []string {
	if len(j.Spec.GPUTypes) > 0 {
		return j.Spec.GPUTypes
	}
	var types []string
	n.s.EachNode(func(node *cluster.Node) bool {
		for i := range node.GPUs {
			types = append(types, node.GPUs[i].Type)
		}
		return true
	})
	slices.Sort(types)
	return slices.Compact(types)
}

// most is how many GPUs of a type a job may have now, by the limits and by what is free.
func (n *naive) most(j *cluster.Job, gpuType string) int32 {
	k := min(int64(j.Spec.GPUs), n.left(j, gpuType)/int64(j.Spec.Share()), int64(n.room(j.Spec, gpuType)))
	if per := int64(j.Spec.GPUsPerNode); per > 0 {
		k -= k % per
	}
	return int32(k)
}

// room is how many GPUs of a type a gang could have.
func (n *naive) room(spec *cluster.JobSpec, gpuType string) int32 {
	sums, most := map[string]int32{}, int32(0)
	n.s.EachNode(func(node *cluster.Node) bool {
		if node.Admits(spec) != "" {
			return true
		}
		k := int32(0)
		parts := map[int32]int32{} // of the node, if the gang must be within one
		for i := range node.GPUs {
			if node.GPUs[i].Type == gpuType && node.UsableMilli(i) >= spec.Share() {
				part := int32(0)
				if spec.Topology.Required {
					part, _ = node.GPUs[i].Part(spec.Topology.Level)
				}
				parts[part]++
				k = max(k, parts[part])
			}
		}
		k = min(k, cluster.FitByResources(node, spec))
		if per := spec.GPUsPerNode; per > 0 && k >= per {
			k = per
		} else if per > 0 {
			k = 0
		}
		domain := "anywhere"
		if spec.Topology.Required {
			domain = n.s.Policy().Domain(node, spec.Topology.Level)
		}
		if domain != "" {
			sums[domain] += k
			most = max(most, sums[domain])
		}
		return true
	})
	return most
}

// held counts milli-GPUs.
func (n *naive) held(path string, keep func(*cluster.Job, string) bool) int64 {
	sum := int64(0)
	n.s.EachHolding(func(j *cluster.Job) bool {
		node := n.s.Node(j.Workers[0].Node)
		t := node.GPUs[node.FindGPU(j.Workers[0].GPUs[0])].Type
		if within(j.Spec.Queue, path) && keep(j, t) {
			sum += int64(j.Held()) * int64(j.Spec.Share())
		}
		return true
	})
	return sum
}

// left is how many milli-GPUs of a type a job's limits leave.
func (n *naive) left(j *cluster.Job, gpuType string) int64 {
	left := int64(1) << 40
	p := n.s.Policy()
	for path := j.Spec.Queue; path != ""; path = cluster.ParentQueue(path) {
		q := p.Queue(path)
		if q == nil {
			continue
		}
		if l, ok := cluster.CountOf(q.Limit, ""); ok {
			left = min(left, l*cluster.WholeGPU-n.held(path, func(*cluster.Job, string) bool { return true }))
		}
		if l, ok := cluster.CountOf(q.Limit, gpuType); ok {
			left = min(left, l*cluster.WholeGPU-n.held(path, func(_ *cluster.Job, t string) bool { return t == gpuType }))
		}
		if q.UserLimit > 0 {
			left = min(left, q.UserLimit*cluster.WholeGPU-n.held(path, func(o *cluster.Job, _ string) bool { return o.User == j.User }))
		}
	}
	if n.promises() && !j.Spec.Preemptible {
		left = min(left, n.firm(j, gpuType))
	}
	return max(left, 0)
}

func (n *naive) promises() bool {
	return slices.ContainsFunc(n.s.Policy().Queues, func(q cluster.QueuePolicy) bool { return len(q.Quota) > 0 })
}

// promised is a queue's quota of a type, and whether it is of any type. Who
// names none has that of its parts.
func (n *naive) promised(path, gpuType string) (gpus int64, ofAny bool) {
	p := n.s.Policy()
	if q := p.Queue(path); q != nil && len(q.Quota) > 0 {
		if q.Quota[0].Type == "" {
			return q.Quota[0].GPUs * cluster.WholeGPU, true
		}
		k, _ := cluster.CountOf(q.Quota, gpuType)
		return k * cluster.WholeGPU, false
	}
	typed, all := int64(0), int64(0)
	for i := range p.Queues {
		if cluster.ParentQueue(p.Queues[i].Path) == path {
			k, is := n.promised(p.Queues[i].Path, gpuType)
			ofAny = ofAny || is
			typed += k
			whole, _ := n.promised(p.Queues[i].Path, "h100")
			all += whole // the random policies promise no other type
		}
	}
	if ofAny {
		return all, true
	}
	return typed, false
}

// covered is how much more a queue may hold within its own quota.
func (n *naive) covered(path, gpuType string, keep func(*cluster.Job) bool) int64 {
	milli, ofAny := n.promised(path, gpuType)
	return milli - n.held(path, func(o *cluster.Job, t string) bool { return keep(o) && (ofAny || t == gpuType) })
}

// firm is how much more of a type a job may have that may not be stopped.
func (n *naive) firm(j *cluster.Job, gpuType string) int64 {
	most, others := int64(0), int64(0)
	firm := func(o *cluster.Job) bool { return !o.Spec.Preemptible }
	from := ""
	for path := j.Spec.Queue; path != ""; from, path = path, cluster.ParentQueue(path) {
		for i := range n.s.Policy().Queues {
			if part := n.s.Policy().Queues[i].Path; part != from && cluster.ParentQueue(part) == path {
				others += max(n.covered(part, gpuType, firm), 0)
			}
		}
		most = max(most, n.covered(path, gpuType, firm)-others)
	}
	return most
}

// borrows reports whether a job would hold more than was promised, whatever type it gets.
func (n *naive) borrows(j *cluster.Job) bool {
	if !n.promises() {
		return false
	}
	need := int64(j.Spec.Least()) * int64(j.Spec.Share())
	var known []string
	n.s.EachNode(func(node *cluster.Node) bool {
		for i := range node.GPUs {
			known = append(known, node.GPUs[i].Type)
		}
		return true
	})
	for _, t := range n.typesOf(j) {
		for path := j.Spec.Queue; path != "" && slices.Contains(known, t); path = cluster.ParentQueue(path) {
			if q := n.s.Policy().Queue(path); q != nil && len(q.Quota) > 0 && need <= n.covered(path, t, func(*cluster.Job) bool { return true }) {
				return false
			}
		}
	}
	return true
}

func (n *naive) arrayFull(j *cluster.Job) bool {
	if j.Spec.Array.Parallel == 0 {
		return false
	}
	running := int32(0)
	n.s.EachHolding(func(o *cluster.Job) bool {
		if o.Array == j.Array {
			running++
		}
		return true
	})
	return running >= j.Spec.Array.Parallel
}

// drawFull draws a world in which some jobs run and some wait, without
// preemption, reservations and fair share.
func drawFull(t *rapid.T) *world {
	w := newWorld(t, nil)
	gpus := w.drawNodes(t)
	p := drawPolicy(t, gpus)
	for i := range p.Queues {
		q := &p.Queues[i]
		for _, promised := range q.Quota { // no limit below a quota: such a policy is refused
			for k := range q.Limit {
				if q.Limit[k].Type == promised.Type {
					q.Limit[k].GPUs = max(q.Limit[k].GPUs, promised.GPUs)
				}
			}
		}
	}
	p.Setback = 0
	p.Preemption.Off, p.Defrag.On, p.Backfill.Off, p.Backfill.Reserve = true, false, false, 0
	w.apply(&cluster.SetPolicy{Policy: p, Any: true})
	for range rapid.IntRange(2, 25).Draw(t, "jobs") {
		w.serial++
		w.try(&cluster.SubmitJob{
			RequestID: fmt.Sprint(w.serial), User: rapid.SampledFrom(users).Draw(t, "user"), Spec: drawSpec(t, len(w.s.Policy().Queues) > 0),
		})
		if rapid.IntRange(0, 4).Draw(t, "turn") == 0 {
			w.pass(time.Minute)
			w.turn()
			w.runAll()
		}
	}
	for _, id := range w.ids(cluster.Running) {
		switch rapid.IntRange(0, 4).Draw(t, "end") {
		case 0:
			w.end(id)
		case 1:
			w.report(id, cluster.WorkerExited, 1)
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "drained") == 0 {
		w.apply(&cluster.DrainNode{Node: "n0"})
	}
	w.pass(time.Duration(rapid.IntRange(0, 120).Draw(t, "pass")) * time.Second)
	return w
}

// TestNaivePlannerAgrees: each start of a plan is the one that plain loops over
// all jobs and all nodes choose, of the type that they choose and as large; and
// when the plan ends, nothing more may start. Where on the nodes of that type a
// gang goes is compared with plain loops in package fleet.
func TestNaivePlannerAgrees(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawFull(t)
		plan := w.plan(true)
		fork := w.s.Snapshot()
		n := &naive{s: fork, x: w.x, now: w.now}
		for i, st := range plan.Starts {
			j, types := n.next()
			if j == nil || j.ID != st.Job {
				t.Fatalf("start %d of the plan is of job %d, the first that may start is %+v", i, st.Job, j)
			}
			most := map[string]int32{}
			for _, gpuType := range types {
				most[gpuType] = n.most(j, gpuType)
			}
			r := fork.Apply(9, w.now, &cluster.StartJob{Job: st.Job, Epoch: st.Epoch, Workers: st.Workers})
			if r.Code != cluster.OK {
				t.Fatalf("job %d: %s", st.Job, r.Message)
			}
			got := fork.Job(j.ID)
			gpuType := (&world{s: fork}).typeOf(got)
			if got.Held() != most[gpuType] || !slices.Contains(types, gpuType) || len(j.Spec.GPUTypes) > 0 && gpuType != types[0] {
				t.Fatalf("job %d (%s) has %d GPUs of type %s, may have %v, the first of %v", j.ID, j.Spec.Wants(), got.Held(), gpuType, most, types)
			}
		}
		if j, _ := n.next(); j != nil {
			t.Fatalf("job %d (%s, queue %s) may start, and is not in the plan %v", j.ID, j.Spec.Wants(), j.Spec.Queue, plan)
		}
	})
}
