package reconcile_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/nodeagent/reconcile"
)

func key(job, epoch uint64, rank int) reconcile.Key {
	return reconcile.Key{Job: job, Epoch: epoch, Rank: rank}
}

func assign(job, epoch uint64, slots ...reconcile.Slot) reconcile.Assignment {
	return reconcile.Assignment{Job: job, Epoch: epoch, Workers: slots}
}

func slot(rank int, gpus ...string) reconcile.Slot { return reconcile.Slot{Rank: rank, GPUs: gpus} }

func part(rank, milli int, gpu string) reconcile.Slot {
	return reconcile.Slot{Rank: rank, GPUs: []string{gpu}, Milli: milli}
}

func stopping(a reconcile.Assignment, warn, grace time.Duration) reconcile.Assignment {
	a.Stop = &reconcile.Stop{Why: "preempted", Warn: warn, Grace: grace}
	return a
}

func want(as ...reconcile.Assignment) *reconcile.Desired { return &reconcile.Desired{Assignments: as} }

func alive(k reconcile.Key, gpus ...string) reconcile.Worker {
	return reconcile.Worker{Key: k, GPUs: gpus, Alive: true}
}

func aliveOn(k reconcile.Key, milli int, gpu string) reconcile.Worker {
	return reconcile.Worker{Key: k, GPUs: []string{gpu}, Milli: milli, Alive: true}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	stop := reconcile.Stop{Why: "preempted", Warn: time.Minute, Grace: time.Second}
	told := alive(key(1, 1, 0), "a")
	told.Stopping = &stop
	cases := []struct {
		name    string
		desired *reconcile.Desired
		workers []reconcile.Worker
		want    []string // kind and key
	}{
		{"silence stops nothing", nil, []reconcile.Worker{alive(key(1, 1, 0), "a")}, nil},
		{"launch what is new", want(assign(1, 1, slot(0, "a"), slot(1, "b"))), nil, []string{"launch 1-1-0", "launch 1-1-1"}},
		{"leave what runs", want(assign(1, 1, slot(0, "a"))), []reconcile.Worker{alive(key(1, 1, 0), "a")}, nil},
		{"never launch an ended one again", want(assign(1, 1, slot(0, "a"))), []reconcile.Worker{{Key: key(1, 1, 0)}}, nil},
		{"stop what is not wanted", want(), []reconcile.Worker{alive(key(1, 1, 0), "a")}, []string{"halt 1-1-0 0s+5s"}},
		{
			"wait for the GPU, stop the older epoch", want(assign(1, 2, slot(0, "a"), slot(1, "b"))),
			[]reconcile.Worker{alive(key(1, 1, 0), "a")},
			[]string{"halt 1-1-0 0s+5s", "launch 1-2-1"},
		},
		{"no GPU twice in one order", want(assign(1, 1, slot(0, "a")), assign(2, 1, slot(0, "a"))), nil, []string{"launch 1-1-0"}},
		{
			"stop with its durations", want(stopping(assign(1, 1, slot(0, "a")), time.Minute, time.Second)),
			[]reconcile.Worker{alive(key(1, 1, 0), "a")},
			[]string{"halt 1-1-0 1m0s+1s"},
		},
		{"not twice", want(stopping(assign(1, 1, slot(0, "a")), time.Minute, time.Second)), []reconcile.Worker{told}, nil},
		{
			"but again when tighter", want(stopping(assign(1, 1, slot(0, "a")), 0, time.Second)),
			[]reconcile.Worker{told},
			[]string{"halt 1-1-0 0s+1s"},
		},
		{"decline what is to stop before it started", want(stopping(assign(1, 1, slot(0, "a")), 0, 0)), nil, []string{"decline 1-1-0 0s+0s"}},
		{
			"acknowledge ends alone",
			&reconcile.Desired{Acknowledged: []reconcile.Key{key(1, 1, 0), key(1, 1, 1), key(1, 1, 2)}, Assignments: []reconcile.Assignment{assign(1, 1, slot(1, "b"))}},
			[]reconcile.Worker{{Key: key(1, 1, 0)}, alive(key(1, 1, 1), "b"), {Key: key(1, 1, 2), Acknowledged: true}},
			[]string{"acknowledge 1-1-0"},
		},
		{
			"an acknowledged end is never launched", &reconcile.Desired{
				Acknowledged: []reconcile.Key{key(1, 1, 0)}, Assignments: []reconcile.Assignment{assign(1, 1, slot(0, "a"))},
			}, nil, nil,
		},
		{"an older epoch than the node knows is never launched", want(assign(1, 1, slot(0, "a"))), []reconcile.Worker{{Key: key(1, 2, 0)}}, nil},
		{
			"shares lie on one GPU side by side", want(assign(1, 1, part(0, 500, "a")), assign(2, 1, part(0, 300, "a")), assign(3, 1, part(0, 200, "a"))),
			nil,
			[]string{"launch 1-1-0", "launch 2-1-0", "launch 3-1-0"},
		},
		{
			"a share waits until there is room for it", want(assign(1, 1, part(0, 700, "a")), assign(2, 1, part(0, 301, "a")), assign(3, 1, part(0, 300, "a"))),
			[]reconcile.Worker{aliveOn(key(1, 1, 0), 700, "a")},
			[]string{"launch 3-1-0"},
		},
		{
			"a share waits for who holds the whole GPU", want(assign(1, 1, slot(0, "a")), assign(2, 1, part(0, 1, "a"))),
			[]reconcile.Worker{alive(key(1, 1, 0), "a")},
			nil,
		},
		{
			"a whole GPU waits for the last share", want(assign(1, 1, part(0, 1, "a")), assign(2, 1, slot(0, "a"))),
			[]reconcile.Worker{aliveOn(key(1, 1, 0), 1, "a")},
			nil,
		},
		{
			"all of a GPU as a share is a whole one", want(assign(1, 1, part(0, 1000, "a")), assign(2, 1, part(0, 1, "a"))),
			nil,
			[]string{"launch 1-1-0"},
		},
		{
			"the next epoch of a share waits for the older one's room", want(assign(1, 2, part(0, 600, "a")), assign(2, 1, part(0, 400, "a"))),
			[]reconcile.Worker{aliveOn(key(1, 1, 0), 600, "a")},
			[]string{"halt 1-1-0 0s+5s", "launch 2-1-0"},
		},
		{
			"a stale worker's share counts", want(assign(2, 1, part(0, 500, "a"))),
			[]reconcile.Worker{aliveOn(key(1, 1, 0), 600, "a")},
			[]string{"halt 1-1-0 0s+5s"},
		},
		{
			"a share beyond the GPU is all of it", want(assign(1, 1, part(0, 1001, "a")), assign(2, 1, part(0, -5, "b"))),
			[]reconcile.Worker{aliveOn(key(9, 1, 0), 1, "b")},
			[]string{"halt 9-1-0 0s+5s", "launch 1-1-0"},
		},
		{"CPU workers wait for nobody", want(assign(1, 1, slot(0)), assign(2, 1, slot(0))), nil, []string{"launch 1-1-0", "launch 2-1-0"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, a := range reconcile.Diff(c.desired, c.workers) {
				line := fmt.Sprintf("%v %v", a.Kind, a.Key)
				if a.Kind == reconcile.Halt || a.Kind == reconcile.Decline {
					line += fmt.Sprintf(" %v+%v", a.Stop.Warn, a.Stop.Grace)
				}
				got = append(got, line)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFence(t *testing.T) {
	t.Parallel()
	seen := reconcile.Fence{Term: 3, Index: 10}
	for _, ok := range []reconcile.Fence{seen, {Term: 3, Index: 11}, {Term: 4, Index: 1}} {
		if err := seen.Admits(ok); err != nil {
			t.Errorf("%+v: %v", ok, err)
		}
	}
	for _, old := range []reconcile.Fence{{}, {Term: 3, Index: 9}, {Term: 2, Index: 99}} {
		if seen.Admits(old) == nil {
			t.Errorf("%+v was admitted after %+v", old, seen)
		}
	}
}

// node is a model of a node that carries out actions in any order and only in part.
type node struct {
	workers  map[reconcile.Key]reconcile.Worker
	launched map[reconcile.Key]int
}

func (n *node) list() []reconcile.Worker { return slices.Collect(maps.Values(n.workers)) }

func (n *node) do(t *rapid.T, a reconcile.Action) {
	switch a.Kind {
	case reconcile.Launch:
		if n.launched[a.Key]++; n.launched[a.Key] > 1 {
			t.Fatalf("%v was launched twice", a.Key)
		}
		held := map[string]int{}
		for _, w := range n.workers {
			for _, g := range w.GPUs {
				if w.Alive {
					held[g] += reconcile.Share(w.Milli)
				}
			}
		}
		for _, g := range a.GPUs {
			if held[g]+reconcile.Share(a.Milli) > reconcile.WholeGPU {
				t.Fatalf("%v launched with %d of GPU %s, of which %d are held", a.Key, a.Milli, g, held[g])
			}
		}
		n.workers[a.Key] = reconcile.Worker{Key: a.Key, GPUs: a.GPUs, Milli: a.Milli, Alive: true}
	case reconcile.Decline:
		n.workers[a.Key] = reconcile.Worker{Key: a.Key}
	case reconcile.Halt:
		w := n.workers[a.Key]
		if !w.Alive {
			t.Fatalf("%v was halted and does not live", a.Key)
		}
		w.Stopping = &a.Stop
		n.workers[a.Key] = w
	case reconcile.Acknowledge:
		w := n.workers[a.Key]
		if w.Alive || w.Acknowledged {
			t.Fatalf("%+v was acknowledged", w)
		}
		w.Acknowledged = true // the node remembers that it ran: here for ever, in truth for long after the epoch
		n.workers[a.Key] = w
	}
}

func (n *node) exit(k reconcile.Key) {
	w := n.workers[k]
	w.Alive = false
	n.workers[k] = w
}

// leader is a model of a scheduler: per job one epoch at a time, GPUs handed out by its own book-keeping, which may run
// ahead of the node (a node it gave up and took back).
type leader struct {
	jobs map[uint64]*reconcile.Assignment
	last map[uint64]uint64
}

func (l *leader) step(t *rapid.T) {
	job := rapid.Uint64Range(1, 4).Draw(t, "job")
	switch a := l.jobs[job]; {
	case a == nil:
		used := map[string]int{}
		for _, o := range l.jobs {
			for _, s := range o.Workers {
				for _, g := range s.GPUs {
					used[g] += reconcile.Share(s.Milli)
				}
			}
		}
		l.last[job]++
		fresh := assign(job, l.last[job])
		milli := rapid.SampledFrom([]int{0, 0, 1, 333, 500, 999, 1000}).Draw(t, "milli")
		for rank, g := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 4, rapid.ID).Draw(t, "gpus") {
			if used[g]+reconcile.Share(milli) <= reconcile.WholeGPU {
				fresh.Workers = append(fresh.Workers, part(rank, milli, g))
			}
		}
		l.jobs[job] = &fresh
	case rapid.Bool().Draw(t, "forget"):
		delete(l.jobs, job)
	default:
		a.Stop = &reconcile.Stop{Warn: time.Duration(rapid.IntRange(0, 3).Draw(t, "warn")), Grace: 1}
	}
}

func (l *leader) order(n *node) *reconcile.Desired {
	d := &reconcile.Desired{}
	for _, job := range slices.Sorted(maps.Keys(l.jobs)) {
		d.Assignments = append(d.Assignments, *l.jobs[job])
	}
	for _, w := range n.workers {
		if !w.Alive {
			d.Acknowledged = append(d.Acknowledged, w.Key)
		}
	}
	return d
}

// TestLaws: no key twice, no GPU twice (checked by the model), the same input gives the same output, and once the
// leader is quiet and stopped workers end, the node converges to what is desired and Diff has no more to say.
func TestLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := &node{workers: map[reconcile.Key]reconcile.Worker{}, launched: map[reconcile.Key]int{}}
		l := &leader{jobs: map[uint64]*reconcile.Assignment{}, last: map[uint64]uint64{}}
		var desired *reconcile.Desired
		for range rapid.IntRange(1, 40).Draw(t, "rounds") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				l.step(t)
				desired = l.order(n)
			case 1:
				for _, k := range slices.SortedFunc(maps.Keys(n.workers), reconcile.Key.Compare) {
					if n.workers[k].Alive && rapid.Bool().Draw(t, "exits") {
						n.exit(k)
					}
				}
			default:
				actions := reconcile.Diff(desired, n.list())
				if d := cmp.Diff(actions, reconcile.Diff(desired, n.list())); d != "" {
					t.Fatalf("same input, other output: %s", d)
				}
				for _, a := range actions {
					if rapid.Bool().Draw(t, "done") {
						n.do(t, a)
					}
				}
			}
		}
		settle(t, n, l)
	})
}

func settle(t *rapid.T, n *node, l *leader) {
	for range 20 {
		for k, w := range n.workers {
			if w.Stopping != nil && w.Alive {
				n.exit(k)
			}
		}
		desired := l.order(n)
		actions := reconcile.Diff(desired, n.list())
		for _, a := range actions {
			n.do(t, a)
		}
		if len(actions) == 0 {
			for _, w := range n.list() {
				if !slices.Contains(desired.Listed(), w.Key) && (w.Alive || !w.Acknowledged) {
					t.Fatalf("%v is not desired and still alive or untold: %+v", w.Key, w)
				}
			}
			for _, k := range desired.Listed() {
				if _, known := n.workers[k]; !known && n.launched[k] == 0 && !slices.Contains(desired.Acknowledged, k) {
					if a := l.jobs[k.Job]; a.Stop == nil {
						t.Fatalf("%v is desired and was never launched", k)
					}
				}
			}
			return
		}
	}
	t.Fatalf("20 rounds and still not settled: %v", n.list())
}
