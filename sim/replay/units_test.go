package replay

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

func secs(n int) time.Duration { return time.Duration(n) * time.Second }

// job makes a job that arrives at a second and runs for some, in whole GPUs.
func job(at, length, gpus int) trace.Job {
	return trace.Job{ID: fmt.Sprint(at), Submit: secs(at), Length: secs(length), Guess: secs(length), GPUs: int32(gpus), Milli: milli, Queue: "default"}
}

func nodes(n, gpus int) []trace.Node {
	var out []trace.Node
	for i := range n {
		out = append(out, trace.Node{Name: fmt.Sprintf("node%d", i), GPUs: int32(gpus), Type: trace.UnknownType, Rack: fmt.Sprintf("vc-%c", 'a'+i)})
	}
	return out
}

// scripted is a scheduler that evicts at given seconds and else starts what fits, first come first served.
type scripted struct {
	evict map[int]cluster.JobID
	after int // seconds after an eviction in which nothing starts
	quiet cluster.Time
}

func (s *scripted) Step(st *cluster.State, now cluster.Time) ([]cluster.Command, cluster.Time) {
	next := cluster.Time(0)
	for at := range s.evict {
		if t := genesis.Add(secs(at)); t > now && (next == 0 || t < next) {
			next = t
		}
	}
	at := int(now.Sub(genesis) / time.Second)
	if id := s.evict[at]; id != 0 {
		delete(s.evict, at)
		s.quiet = now.Add(secs(s.after))
		return []cluster.Command{&cluster.EvictJob{Job: id, Epoch: st.Job(id).Epoch, Cause: cluster.StopPreempt, Reason: "the script says so"}}, 0
	}
	if now < s.quiet {
		return nil, s.quiet
	}
	first := &strict{key: func(cluster.JobID) time.Duration { return 0 }}
	var rooms []room
	st.EachNode(func(n *cluster.Node) bool {
		r := room{node: n}
		for i := range n.GPUs {
			if n.Usable(i) {
				r.free++
			}
		}
		rooms = append(rooms, r)
		return true
	})
	st.EachPending(func(j *cluster.Job) bool {
		first.queue = append(first.queue, j)
		return true
	})
	var cmds []cluster.Command
	for _, j := range first.queue {
		if c := fit(rooms, j); c != nil {
			cmds = append(cmds, c)
		}
	}
	return cmds, next
}

func play(t *testing.T, cfg Config, tr *Trace, sched func(*world) scheduler) *Report {
	t.Helper()
	cfg.Check = true
	r, err := runWith(&cfg, tr, sched)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestPreemptedJobKeepsItsWork: a job of 100 s is stopped after 30 s, waits 50 s, and owes 10 s more in its next epoch.
func TestPreemptedJobKeepsItsWork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		grace int
		evict map[int]cluster.JobID
		jct   float64
		lost  float64 // of 4 GPUs
		stops int
	}{
		{"undisturbed", 0, nil, 100, 0, 0},
		{"once", 0, map[int]cluster.JobID{30: 1}, 30 + 50 + 10 + 70, 4 * 10, 1},
		{"once with grace", 20, map[int]cluster.JobID{30: 1}, 30 + 50 + 10 + 70, 4 * (20 + 10), 1},
		{"again while it restarts", 0, map[int]cluster.JobID{30: 1, 85: 1}, 30 + 50 + 5 + 50 + 10 + 70, 4 * (5 + 10), 2},
		{"twice", 0, map[int]cluster.JobID{30: 1, 100: 1}, 30 + 50 + 10 + 10 + 50 + 10 + 60, 4 * (10 + 10), 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := DefaultConfig()
			cfg.RestartCost, cfg.Grace = secs(10), secs(c.grace)
			r := play(t, cfg, InMemory([]trace.Job{job(0, 100, 4)}, nodes(1, 8)), func(*world) scheduler {
				return &scripted{evict: c.evict, after: 50}
			})
			if r.AvgJCT != c.jct || r.AvgWait != c.jct-100 || r.Lost != c.lost || r.Preemptions != c.stops {
				t.Errorf("JCT %g, wait %g, lost %g GPU s, %d preemptions; want %g, %g, %g, %d",
					r.AvgJCT, r.AvgWait, r.Lost, r.Preemptions, c.jct, c.jct-100, c.lost, c.stops)
			}
		})
	}
}

// TestFigures: three jobs on 8 GPUs. The second waits for the first, the third is larger than the cluster.
func TestFigures(t *testing.T) {
	t.Parallel()
	tr := InMemory([]trace.Job{job(10, 100, 8), job(20, 50, 4), job(30, 5, 16), {ID: "cpu", Submit: secs(30), Queue: "q"}}, nodes(1, 8))
	r := play(t, DefaultConfig(), tr, firstFirst)
	fair := math.Round((1/1.9+2.8)/2*1e9) / 1e9
	r.AvgFairness, r.P50Fairness = math.Round(r.AvgFairness*1e9)/1e9, math.Round(r.P50Fairness*1e9)/1e9
	want := &Report{
		Order: "gangline", Nodes: 1, GPUs: 8, Jobs: 3, Skipped: 1, Refused: 1, Done: 2,
		Refusals: []Refusal{{Job: "30", Why: "a gang of 16 GPUs of one type, 8 on each node can never start here: the cluster has at most 8 of type gpu: ask for fewer GPUs, another type, or less on each node"}},
		AvgJCT:   120, P50JCT: 120, P90JCT: 136, P99JCT: 139.6, Makespan: 150,
		AvgWait: 45, P50Wait: 45, P90Wait: 81, P99Wait: 89.1, Allocation: 1, Goodput: 1,
		// Alone on 8 GPUs for 10 of 100 s, then with another: 100/(100 x 1.9). The other asks for less than its share: 140/50.
		AvgFairness: fair, P50Fairness: fair, P90Fairness: r.P90Fairness, P99Fairness: r.P99Fairness, MaxFairness: 2.8,
		Misjudged: 9.892, // nobody had told it anything before
		PerQueue:  map[string]QueueReport{"default": {Jobs: 3, Done: 2, AvgJCT: 120, P99JCT: 139.6, AvgWait: 45, P99Wait: 89.1, Allocation: 1, Goodput: 1}},
		Commands:  r.Commands, Events: 5, StateHash: r.StateHash,
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
}

// TestUntil: a replay that is cut reports what had ended by then.
func TestUntil(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.Until = secs(60)
	tr := InMemory([]trace.Job{job(0, 50, 8), job(0, 50, 8), job(100, 1, 1)}, nodes(1, 8))
	r := play(t, cfg, tr, firstFirst)
	if r.Done != 1 || r.Left != 2 || r.AvgJCT != 50 || r.Allocation != 0.6 {
		t.Errorf("%d ended and %d did not, average %g s, allocation %g; want 1, 2, 50, 0.6", r.Done, r.Left, r.AvgJCT, r.Allocation)
	}
}

// TestPartitions: a queue's jobs stay on its nodes, though others are free; a queue without nodes has its jobs refused.
func TestPartitions(t *testing.T) {
	t.Parallel()
	jobs := []trace.Job{job(0, 100, 8), job(0, 100, 8), job(0, 100, 8), job(0, 100, 1)}
	for i, q := range []string{"a", "a", "b", "none"} {
		jobs[i].Queue = q
	}
	cfg := DefaultConfig()
	cfg.Partitions = true
	r := play(t, cfg, InMemory(jobs, nodes(3, 8)), firstFirst)
	if r.Nodes != 2 || r.GPUs != 16 || r.Refused != 1 || r.PerQueue["a"].AvgWait != 50 || r.PerQueue["b"].AvgWait != 0 {
		t.Errorf("%+v", r)
	}
}

// TestQuotas: a queue's quota is the GPUs of its racks; parents that no rack names exist too.
func TestQuotas(t *testing.T) {
	t.Parallel()
	on := nodes(3, 8)
	on[1].Rack, on[2].Rack = "r1", "vc-b/x"
	cfg := DefaultConfig()
	cfg.Quotas = true
	p, err := cfg.policy([]string{"b/x", "a", "c"}, on)
	if err != nil {
		t.Fatal(err)
	}
	eight := []cluster.TypeCount{{GPUs: 8}}
	want := []cluster.QueuePolicy{
		{Path: "a", Quota: eight, Weight: 8000},
		{Path: "b", Weight: 1000},
		{Path: "b/x", Quota: eight, Weight: 8000},
		{Path: "c", Weight: 1000},
	}
	if diff := cmp.Diff(want, p.Queues); diff != "" {
		t.Error(diff)
	}
}

// TestSameBytes: a replay with the production scheduler gives the same bytes each time.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	var jobs []trace.Job
	for i := range 400 {
		j := job(i*7, 50+(i*i*31)%997, 1<<(i%5))
		j.Queue = []string{"a", "b", "c"}[i%3]
		jobs = append(jobs, j)
	}
	tr := InMemory(jobs, nodes(4, 8))
	for _, mode := range []func(*Config){func(*Config) {}, func(c *Config) { c.Partitions = true }, func(c *Config) { c.Strict = true }} {
		cfg := DefaultConfig()
		cfg.RestartCost = secs(60)
		mode(&cfg)
		var first bytes.Buffer
		for range 2 {
			r, err := Run(cfg, tr)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := r.WriteJSON(&out, nil); err != nil {
				t.Fatal(err)
			}
			if r.Done+r.Refused != len(jobs) {
				t.Errorf("%d of %d jobs ended", r.Done, len(jobs))
			}
			if first.Len() == 0 {
				first = out
			} else if diff := cmp.Diff(first.String(), out.String()); diff != "" {
				t.Error(diff)
			}
		}
	}
}

// TestConfigValidate: contradictions are refused before anything runs.
func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want string
		set  func(*Config)
	}{
		{"partitions and quotas", func(c *Config) { c.Partitions, c.Quotas = true, true }},
		{"restart cost", func(c *Config) { c.RestartCost = -1 }},
		{"order", func(c *Config) { c.Order = "lottery" }},
	} {
		cfg := DefaultConfig()
		c.set(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q in it", err, c.want)
		}
	}
}
