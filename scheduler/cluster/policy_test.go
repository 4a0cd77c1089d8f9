package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func queues(qs ...QueuePolicy) *Policy {
	p := DefaultPolicy()
	for i := range qs {
		if qs[i].Weight == 0 {
			qs[i].Weight = 1000
		}
	}
	p.Queues = qs
	return p
}

func h100(n int64) []TypeCount { return []TypeCount{{"h100", n}} }

// TestBadPolicies: each problem is told in words that name the thing. A cycle
// cannot be written: a queue's place is its path.
func TestBadPolicies(t *testing.T) {
	t.Parallel()
	edit := func(f func(p *Policy)) *Policy {
		p := queues(QueuePolicy{Path: "a"})
		f(p)
		return p
	}
	window := func(w Window) *Policy {
		if w.Name == "" {
			w.Name = "w"
		}
		return edit(func(p *Policy) { p.Windows = []Window{w} })
	}
	cases := []struct {
		policy *Policy
		want   string
	}{
		{queues(QueuePolicy{Path: "a"}, QueuePolicy{Path: "b/c"}), "queue b/c: its parent b is not in the policy"},
		{queues(QueuePolicy{Path: "a"}, QueuePolicy{Path: "a"}), "queue a: is named twice"},
		{queues(QueuePolicy{Path: "a//b"}), `queue: "a//b" is not a path of names`},
		{queues(QueuePolicy{Path: "a", Weight: -2500}), "queue a: weight: -2.5 is not in 0.001..1000"},
		{queues(QueuePolicy{Path: "a", Weight: 1_000_001}), "queue a: weight: 1000.001 is not in"},
		{queues(QueuePolicy{Path: "a", UserLimit: -1}), "queue a: user_limit: -1 is not in"},
		{queues(QueuePolicy{Path: "a", Quota: h100(-1)}), `queue a: quota: -1 GPUs of type "h100" is not in`},
		{queues(QueuePolicy{Path: "a", Limit: []TypeCount{{"h\n", 1}}}), `queue a: limit: "h\n" is not a GPU type such as h100`},
		{queues(QueuePolicy{Path: "a", Limit: []TypeCount{{"x", 1}, {"x", 2}}}), `queue a: limit: type "x" is named twice`},
		{queues(QueuePolicy{Path: "a", Limit: make([]TypeCount, 65)}), "queue a: limit: 65 types, at most 64"},
		{queues(QueuePolicy{Path: "a", Quota: h100(8), Limit: h100(7)}), `queue a: limit of 7 is below its quota of 8 GPUs of type "h100"`},
		{queues(QueuePolicy{Path: "a", Quota: []TypeCount{{"", 1}, {"h100", 2}}}), "queue a: quota: give either a number for each GPU type or one for all types together, not both"},
		{queues(QueuePolicy{Path: "a", Quota: h100(4)}, QueuePolicy{Path: "a/b", Quota: h100(3)}, QueuePolicy{Path: "a/c", Quota: h100(2)}), `queue a: its children's quotas of type "h100" add up to 5 GPUs, more than its own 4`},
		{queues(QueuePolicy{Path: "a", Quota: h100(4)}, QueuePolicy{Path: "a/b"}, QueuePolicy{Path: "a/b/c", Quota: h100(5)}), `queue a: its children's quotas of type "h100" add up to 5 GPUs`},
		{queues(QueuePolicy{Path: "a", Quota: h100(4)}, QueuePolicy{Path: "a/b", Quota: []TypeCount{{"a100", 1}}}), `queue a: its children's quotas of type "a100" add up to 1 GPUs, but its own does not name the type`},
		{queues(QueuePolicy{Path: "a", Quota: []TypeCount{{"", 4}}}, QueuePolicy{Path: "a/b", Quota: []TypeCount{{"a100", 3}, {"h100", 2}}}), `queue a: its children's quotas of type "" add up to 5 GPUs, more than its own 4`},
		{queues(QueuePolicy{Path: "a", Quota: h100(4)}, QueuePolicy{Path: "a/b", Quota: []TypeCount{{"", 1}}}), "queue a: its quota is of GPU types, but one of its children has a quota of 1 GPUs of any type"},
		{edit(func(p *Policy) { p.Order = "lifo" }), `order: "lifo" is not one of gangline, fifo`},
		{edit(func(p *Policy) { p.Score = "best" }), `score: "best" is not one of`},
		{edit(func(p *Policy) { p.HalfLife = time.Second }), "fair_share.half_life: 1s is not in 1m..10 years"},
		{edit(func(p *Policy) { p.Weights = []TypeWeight{{"", 1000}} }), `fair_share.gpu_weights: "" is not a GPU type`},
		{edit(func(p *Policy) { p.Weights = []TypeWeight{{"x", -1000}} }), "fair_share.gpu_weights: x: -1 is not in"},
		{edit(func(p *Policy) { p.Weights = []TypeWeight{{"x", 1}, {"x", 1}} }), "fair_share.gpu_weights: x is named twice"},
		{edit(func(p *Policy) { p.Levels = make([]Level, 9) }), "topology: 9 levels, at most 8"},
		{edit(func(p *Policy) { p.Levels[0].Name = "node" }), `topology: level "node" is named twice (node, island and numa are always there)`},
		{edit(func(p *Policy) { p.Levels[0].Name = "" }), `topology: "" is not a name of a level such as rack`},
		{edit(func(p *Policy) { p.Levels[0].Label = "" }), "topology: level block: label "},
		{edit(func(p *Policy) { p.Preemption.MinRuntime = -1 }), "preemption.min_runtime: -1ns is not in"},
		{edit(func(p *Policy) { p.Preemption.MaxPerJob = -1 }), "preemption.max_per_job: -1 is not in"},
		{edit(func(p *Policy) { p.Backfill.Reserve = 65 }), "backfill.reserve: 65 is not in 0..64"},
		{edit(func(p *Policy) { p.Defrag.MaxCost = -1 }), "defragmentation.max_cost: -1ns is not in"},
		{edit(func(p *Policy) { p.Windows = make([]Window, MaxWindows+1) }), "reservations: 257, at most 256"},
		{edit(func(p *Policy) { p.Queues = make([]QueuePolicy, MaxQueues+1) }), "queues: 10001, at most 10000"},
		{window(Window{Name: "\n", Start: 1, End: 2, Maintenance: true}), `reservations: "\n" is not a name`},
		{window(Window{Start: 2, End: 2, Maintenance: true}), "reservations: w: must end after it starts"},
		{window(Window{Start: 1, End: 2}), "reservations: w: name either the queue that it is for, or maintenance: true"},
		{window(Window{Start: 1, End: 2, Queue: "a", Maintenance: true}), "reservations: w: name either the queue"},
		{window(Window{Start: 1, End: 2, Queue: "z"}), "reservations: w: queue z is not in the policy"},
		{window(Window{Start: 1, End: 2, Queue: "/"}), `reservations: w: queue: "/" is not a path`},
		{edit(func(p *Policy) { p.Windows = []Window{{Name: "w"}, {Name: "w"}} }), "reservations: w is named twice"},
	}
	f := newFixture(t)
	for _, c := range cases {
		f.refused(&SetPolicy{Policy: c.policy, Any: true}, Invalid, c.want)
	}
	all := queues(QueuePolicy{Path: "a", Weight: -1}, QueuePolicy{Path: "b/c"})
	all.Order = "x"
	err := all.Validate()
	for _, want := range []string{"order:", "weight:", "its parent b"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("not all problems are told at once: %q lacks %q", err, want)
		}
	}
}

func TestGoodPolicies(t *testing.T) {
	t.Parallel()
	for _, p := range []*Policy{
		DefaultPolicy(),
		queues(QueuePolicy{Path: "a", Quota: h100(4), Limit: []TypeCount{{"", 8}, {"h100", 4}}}, QueuePolicy{Path: "a-b"}, QueuePolicy{Path: "a/b", Quota: h100(4)}, QueuePolicy{Path: "a/b/c", Quota: h100(4)}),
		queues(QueuePolicy{Path: "a"}, QueuePolicy{Path: "a/b", Quota: h100(4)}, QueuePolicy{Path: "a/c", Quota: []TypeCount{{"", 9}}}),
		queues(QueuePolicy{Path: "a", Quota: []TypeCount{{"", 9}}}, QueuePolicy{Path: "a/b", Quota: []TypeCount{{"", 4}}}, QueuePolicy{Path: "a/c"}, QueuePolicy{Path: "a/c/d", Quota: []TypeCount{{"a100", 3}, {"h100", 2}}}),
	} {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p.Queues, err)
		}
	}
}

// BenchmarkValidate checks the largest policy: it happens under the log.
func BenchmarkValidate(b *testing.B) {
	p := queues()
	for i := range MaxQueues / 2 {
		top := fmt.Sprintf("q%05d", i)
		p.Queues = append(p.Queues, QueuePolicy{Path: top, Weight: 1, Quota: h100(2)}, QueuePolicy{Path: top + "/x", Weight: 1, Quota: h100(2)})
	}
	for b.Loop() {
		if err := p.Validate(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSetPolicy(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if f.s.PolicyIndex() != 0 || f.s.Policy().Order != OrderGangline {
		t.Fatal("the default policy does not hold")
	}
	f.refused(&SetPolicy{Any: true}, Invalid, "no policy is given")
	f.ok(&SetPolicy{Policy: queues(QueuePolicy{Path: "a"})})
	at := f.s.PolicyIndex()
	f.refused(&SetPolicy{Policy: DefaultPolicy()}, Conflict, "look at it again")
	f.refused(&SetPolicy{Policy: DefaultPolicy(), Was: at + 1}, Conflict, "look at it again")
	f.ok(&SetPolicy{Policy: DefaultPolicy(), Was: at})
	f.ok(&SetPolicy{Policy: DefaultPolicy(), Any: true})
	p := queues(QueuePolicy{Path: "a"}, QueuePolicy{Path: "a/b"})
	if p.Queue("a/b") != &p.Queues[1] || p.Queue("a/c") != nil || ParentQueue("a/b/c") != "a/b" || ParentQueue("a") != "" {
		t.Fatal("queues are not found")
	}
}

// TestSubmitUnderPolicy: what can never start is refused at once, with a way out.
func TestSubmitUnderPolicy(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.ok(&SetPolicy{Any: true, Policy: queues(
		QueuePolicy{Path: "a", Limit: []TypeCount{{"", 6}}}, QueuePolicy{Path: "a/b", Limit: []TypeCount{{"a100", 1}, {"h100", 3}}},
		QueuePolicy{Path: "a/c", UserLimit: 2}, QueuePolicy{Path: "old", Closed: true},
	)})
	try := func(queue string, gpus, least int32, types ...string) Command {
		sp := spec(gpus)
		sp.Queue, sp.GPUTypes, sp.MinGPUs = queue, types, least
		return &SubmitJob{RequestID: fmt.Sprint(f.i), User: "ann", Spec: sp}
	}
	f.refused(try("z", 1, 0), NeverFits, "queue z is not in the cluster's policy: submit to one of those that `gangline queues` lists")
	f.refused(try("old", 1, 0), NeverFits, "queue old is closed")
	f.refused(try("a", 7, 0), NeverFits, "a gang of 7 GPUs of one type is larger than the limit of queue a (6 GPUs)")
	f.refused(try("a/b", 7, 0), NeverFits, "limit of queue a/b (3 GPUs of these types)")
	f.refused(try("a/b", 4, 0, "a100", "h100"), NeverFits, "limit of queue a/b (3 GPUs of these types)")
	f.refused(try("a/c", 3, 0), NeverFits, "larger than what one user may hold in queue a/c (user_limit 2)")
	f.refused(try("a/b", 4, 0), NeverFits, "limit of queue a/b (3 GPUs of these types)") // any type is no better
	f.ok(try("a/b", 3, 0, "a100", "h100"))
	f.ok(try("a", 8, 6)) // it may start with less
	f.refused(try("a", 8, 7), NeverFits, "a gang of 7 to 8 GPUs")
	sp := spec(1)
	sp.Queue, sp.Topology.Level = "a", "pod"
	f.refused(&SubmitJob{RequestID: "t", Spec: sp}, NeverFits, `topology level "pod" is not one of the cluster's (block, rack, node, island, numa)`)
}

// A job that waits in a queue which is deleted goes on; only new ones are refused.
func TestQueueDeletedWhileJobsWait(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.ok(&SetPolicy{Any: true, Policy: queues(QueuePolicy{Path: "a"})})
	sp := spec(2)
	sp.Queue = "a"
	id := f.ok(&SubmitJob{RequestID: "r", User: "ann", Spec: sp}).Job
	f.ok(&SetPolicy{Any: true, Policy: queues(QueuePolicy{Path: "b"})})
	f.want(id, Pending, "")
	f.place(id)
	f.report(id, 0, WorkerExited, 0)
	f.report(id, 1, WorkerExited, 0)
	f.want(id, Succeeded, "")
}

// TestUnpreemptibleNeedsQuota: a job that may not be preempted never borrows, so it is told at once where that leaves
// it no GPUs at all.
func TestUnpreemptibleNeedsQuota(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.ok(&SetPolicy{Any: true, Policy: queues(QueuePolicy{Path: "a", Quota: []TypeCount{{"h100", 2}}}, QueuePolicy{Path: "a/b"}, QueuePolicy{Path: "c"})})
	try := func(queue string, gpus int32, preemptible bool) Command {
		sp := spec(gpus)
		sp.Queue, sp.Preemptible = queue, preemptible
		return &SubmitJob{RequestID: fmt.Sprint(f.i), User: "ann", Spec: sp}
	}
	f.ok(try("a/b", 2, false)) // by the quota of the queue above
	f.refused(try("a/b", 3, false), NeverFits, "larger than the quota of queue a/b (2 GPUs), and a job that is not preemptible")
	f.refused(try("c", 1, false), NeverFits, "queue c has no quota, and a job that is not preemptible")
	f.ok(try("a/b", 3, true))
	f.ok(try("c", 1, true))
}
