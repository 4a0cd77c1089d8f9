package replay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// town is a workload of many kinds of jobs on 8 nodes of 8 GPUs in racks.
func town(seed uint64, jobs int) *Trace {
	rng := rand.New(rand.NewPCG(seed, 99))
	on := nodes(8, 8)
	var all []trace.Job
	at := 0.0
	for i := range jobs {
		at += rng.ExpFloat64() * 600
		j := job(int(at), 60+int(rng.ExpFloat64()*7200), 1<<rng.IntN(6))
		j.ID, j.Queue = fmt.Sprint(i), []string{"a", "b"}[i%2]
		if rng.IntN(5) == 0 {
			j.GPUs, j.Milli = 1, int32(100+rng.IntN(900))
		}
		all = append(all, j)
	}
	for i := range on {
		on[i].Rack = fmt.Sprint("r", i/2)
	}
	return InMemory(all, on)
}

func stressed(t testing.TB, seed uint64) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Conditions, _ = Preset("stress")
	cfg.Seed, cfg.Check = seed, true
	return cfg
}

// exact are conditions without chance: everything takes the time that it is said to take, and breaks when a test says so.
func exact() *Conditions {
	return &Conditions{
		Start:      StartCosts{Launch: secs(5), Warmup: secs(10), Restart: secs(7)},
		Checkpoint: CheckpointCosts{Interval: secs(30), Cost: secs(2), Jobs: 1},
		Stop:       StopCosts{Warn: secs(30), Grace: secs(10), Exit: secs(1)},
		Retries:    3, Lease: secs(6), Notice: secs(2), Again: secs(5),
	}
}

// strikes makes the production scheduler for a world in which one thing breaks at a second.
func strikes(at int, kind faultKind) func(*world) scheduler {
	return func(w *world) scheduler {
		if at > 0 && w.now == genesis {
			w.real.after(secs(at), happening{what: faultStrikes, kind: kind})
		}
		return newScheduler(w)
	}
}

// TestTimelines: one job of 100 s of work on 8 GPUs, and what happens to it, second by second.
func TestTimelines(t *testing.T) {
	t.Parallel()
	const start, saves, end = 5 + 10, 3 * 2, 1
	repair := func(r *FaultRate, s int) { r.Repair = secs(s) }
	for _, c := range []struct {
		name  string
		set   func(*Conditions)
		sched func(*world) scheduler
		jct   float64
		lost  LostGPU // of one GPU
	}{
		{
			name: "undisturbed", jct: start + 100 + saves + end,
			lost: LostGPU{StartUp: start, Checkpoint: saves, Ending: end},
		},
		{
			name: "no checkpoints", set: func(c *Conditions) { c.Checkpoint.Jobs = 0 }, jct: start + 100 + end,
			lost: LostGPU{StartUp: start, Ending: end},
		},
		{ // It saved 30 s at 47, is warned at 50, saves 3 s more until 52, is gone at 53, and starts again at 70.
			name: "warned", sched: func(*world) scheduler { return &scripted{evict: map[int]cluster.JobID{50: 1}, after: 20} },
			jct:  70 + 5 + 17 + 67 + 2*2 + 1,
			lost: LostGPU{StartUp: start, Restart: 22, Checkpoint: 2 + 2 + 4, Stopping: 1, Ending: end},
		},
		{ // It cannot save within its 40 s: it is killed at 90, and 38 s of work are gone. There is one checkpoint, at 85.
			name: "warned in vain", set: func(c *Conditions) { c.Checkpoint.Interval, c.Checkpoint.Cost = 0, secs(50) },
			sched: func(*world) scheduler { return &scripted{evict: map[int]cluster.JobID{50: 1}, after: 50} },
			jct:   100 + 22 + 100 + 1,
			lost:  LostGPU{StartUp: start, Restart: 22, Repeated: 35, Stopping: 40, Ending: end},
		},
		{ // It dies at 50 with 3 s unsaved, is lost at 56 with its lease, and is back at 150.
			name: "machine", set: func(c *Conditions) { repair(&c.Nodes, 100) }, sched: strikes(50, nodeFault), jct: 150 + 22 + 70 + 2*2 + 1,
			lost: LostGPU{StartUp: start, Restart: 22, Repeated: 3, Checkpoint: 2 + 4, Hung: 6, Ending: end},
		},
		{ // The process fails at 50 and is known to at once; it is its own fault, so the next epoch waits a second.
			name: "process", sched: strikes(50, workerFault), jct: 51 + 22 + 70 + 2*2 + 1,
			lost: LostGPU{StartUp: start, Restart: 22, Repeated: 3, Checkpoint: 2 + 4, Ending: end},
		},
		{ // One GPU of the node fails; the job needs all 8, and gets them when it is repaired.
			name: "gpu", set: func(c *Conditions) { repair(&c.GPUs, 100) }, sched: strikes(50, gpuFault), jct: 150 + 22 + 70 + 2*2 + 1,
			lost: LostGPU{StartUp: start, Restart: 22, Repeated: 3, Checkpoint: 2 + 4, Ending: end},
		},
		{
			name: "agent within its lease", set: func(c *Conditions) { repair(&c.Agents, 5) }, sched: strikes(50, agentFault), jct: start + 100 + saves + end,
			lost: LostGPU{StartUp: start, Checkpoint: saves, Ending: end},
		},
		{ // The lease runs out at 56 and the job is taken back, though it trains on; its agent is back at 60 and ends it
			// at 61, when its GPUs can be used again. The checkpoint at 79 that it would have written is not there.
			name: "agent beyond its lease", set: func(c *Conditions) { repair(&c.Agents, 10) }, sched: strikes(50, agentFault), jct: 61 + 22 + 70 + 2*2 + 1,
			lost: LostGPU{StartUp: start, Restart: 22, Repeated: 9, Checkpoint: 2 + 4, Ending: end},
		},
		{ // It ends at 122 while nobody leads, and that is known at 130.
			name: "leader", set: func(c *Conditions) { repair(&c.Leader, 15) }, sched: strikes(115, leaderFault), jct: 130,
			lost: LostGPU{StartUp: start, Checkpoint: saves, Ending: 9},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := DefaultConfig()
			if cfg.Conditions = exact(); c.set != nil {
				c.set(cfg.Conditions)
			}
			if c.sched == nil {
				c.sched = newScheduler
			}
			r := play(t, cfg, InMemory([]trace.Job{job(0, 100, 8)}, nodes(1, 8)), c.sched)
			if r.AvgJCT != c.jct {
				t.Errorf("ended after %g s, want %g", r.AvgJCT, c.jct)
			}
			l := &c.lost
			for _, v := range []*float64{&l.StartUp, &l.Restart, &l.Repeated, &l.Checkpoint, &l.Hung, &l.Stopping, &l.Ending} {
				*v *= 8
			}
			if diff := cmp.Diff(l, r.LostGPU); diff != "" {
				t.Error(diff)
			}
			sum := l.StartUp + l.Restart + l.Repeated + l.Checkpoint + l.Hung + l.Stopping + l.Ending
			if r.Lost != sum {
				t.Errorf("lost %g GPU s in all, by cause %g", r.Lost, sum)
			}
		})
	}
}

// TestElastic: with twice its GPUs a job is as fast as the curve says, and it is resized when others come.
func TestElastic(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.Conditions = exact()
	cfg.Conditions.Elastic = Elasticity{Jobs: 1, Min: 0.5, Max: 2, Curve: []CurvePoint{{0.5, 0.6}, {1, 1}, {2, 1.6}}}
	cfg.Conditions.Checkpoint = CheckpointCosts{}
	r := play(t, cfg, InMemory([]trace.Job{job(0, 160, 8)}, nodes(2, 8)), newScheduler)
	if want := 15 + 100.0 + 1; r.AvgJCT != want {
		t.Errorf("alone on all GPUs it took %g s, want %g", r.AvgJCT, want)
	}
	e := &cfg.Conditions.Elastic
	for gpus, want := range map[float64]float64{0.5: 0.6, 1: 1, 2: 1.6, 4: 2.56, 0.25: 0.36} {
		if got := e.speed(gpus); got < want-1e-9 || got > want+1e-9 {
			t.Errorf("with %g times the GPUs it is %g times as fast, want %g", gpus, got, want)
		}
	}
	if got := (&Elasticity{Curve: []CurvePoint{{32, 28.8}}}).speed(1024); got < 829 || got > 830 {
		t.Errorf("28.8 times as fast with 32 times the GPUs makes %g with 1024, want 28.8 squared", got)
	}
}

// TestStress: with everything breaking all the time no rule is broken, and every job ends.
func TestStress(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r, err := Run(stressed(t, seed), town(seed, 100))
			if err != nil {
				t.Fatal(err)
			}
			if r.Done+r.Failed+r.Refused != 100 {
				t.Errorf("%d done, %d failed, %d refused, %d left of 100", r.Done, r.Failed, r.Refused, r.Left)
			}
			f := r.Failures
			if f.Nodes == 0 || f.GPUs == 0 || f.Racks == 0 || f.AgentsAway == 0 || f.LeaderChanges == 0 || f.ReportsLost == 0 || f.NodesLost == 0 || f.Resizes == 0 {
				t.Errorf("something never happened: %+v", f)
			}
		})
	}
}

// TestFaultsAreThoseOfTheSeed: another policy meets the same faults; the same run gives the same bytes.
func TestFaultsAreThoseOfTheSeed(t *testing.T) {
	t.Parallel()
	tr := town(7, 60)
	run := func(order string, seed uint64) (*Report, string) {
		cfg := stressed(t, seed)
		cfg.Check, cfg.Order, cfg.Until = false, cluster.OrderName(order), 6*time.Hour
		r, err := Run(cfg, tr)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := r.WriteJSON(&out, nil); err != nil {
			t.Fatal(err)
		}
		return r, out.String()
	}
	a, text := run("fifo", 3)
	prev := runtime.GOMAXPROCS(1)
	_, again := run("fifo", 3)
	runtime.GOMAXPROCS(prev)
	if diff := cmp.Diff(text, again); diff != "" {
		t.Errorf("the same run differs: %s", diff)
	}
	b, _ := run("las", 3)
	c, _ := run("fifo", 4)
	struck := func(r *Report) [6]int {
		f := r.Failures
		return [6]int{f.Nodes, f.Racks, f.GPUs, f.Workers, f.AgentsAway, f.LeaderChanges}
	}
	if struck(a) != struck(b) || struck(a) == struck(c) {
		t.Errorf("faults: %v under fifo, %v under las, %v with another seed", struck(a), struck(b), struck(c))
	}
}

// TestPlantedFaults: the checks of reality can fail.
func TestPlantedFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plant func(*reality)
		want  string
	}{
		"busy GPU": {func(r *reality) {
			g := &gang{job: &work{milli: 500}}
			m := r.machines[0]
			m.launch(&worker{gang: g, gpus: []string{"x"}})
			m.launch(&worker{gang: g, gpus: []string{"x"}})
			m.launch(&worker{gang: g, gpus: []string{"x"}})
		}, "GPU x is used"},
		"illegal edge": {func(r *reality) {
			r.work[1] = &work{state: cluster.Succeeded, gang: &gang{}}
		}, "job 1 went from Succeeded to Pending"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := DefaultConfig()
			cfg.Conditions, cfg.Check = exact(), true
			_, err := runWith(&cfg, InMemory([]trace.Job{job(0, 100, 8)}, nodes(1, 8)), func(w *world) scheduler {
				c.plant(w.real)
				return newScheduler(w)
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}
