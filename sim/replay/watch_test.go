package replay

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// busyTrace is 400 jobs of three queues on four nodes.
func busyTrace() *Trace { return InMemory(busyJobs(), nodes(4, 8)) }

func busyJobs() []trace.Job {
	var jobs []trace.Job
	for i := range 400 {
		j := job(i*7, 50+(i*i*31)%997, 1<<(i%5))
		j.Queue, j.User = []string{"a", "b", "c"}[i%3], []string{"ann", "bob"}[i%2]
		jobs = append(jobs, j)
	}
	return jobs
}

// tally adds up all that a watch tells.
type told struct {
	held, holds, pending, startWait float64
	outcomes                        map[string]int
	started, starts, stops          int
	samples                         []Sample
	spots                           int
}

func (l *told) watch() *Watch {
	l.outcomes = map[string]int{}
	return &Watch{
		Outcome: func(o *Outcome) error { l.outcomes[o.State]++; return nil },
		Levels: func(x *Levels) {
			span := (x.To - x.From).Seconds()
			l.held += span * float64(x.Held) / milli
			l.pending += span * float64(x.Pending)
			l.started += x.Started
			l.startWait += x.StartedWait.Seconds()
		},
		Hold: func(h *Hold) {
			for _, p := range h.Places {
				l.spots += len(p.GPUs)
				l.holds += float64(len(p.GPUs)) * (h.To - h.From).Seconds()
			}
		},
		Decision: func(d *Decision) {
			if d.Stop {
				l.stops++
			} else {
				l.starts++
			}
		},
		Samplers: []Sampler{{Every: secs(100), Take: func(s *Sample) (time.Duration, error) {
			l.samples = append(l.samples, *s)
			return 0, nil
		}}},
	}
}

// queuesAddUp holds that queues' GPU time is all of it.
func queuesAddUp(t *testing.T, r *Report) {
	t.Helper()
	held, useful := 0.0, 0.0
	for _, q := range r.PerQueue { // any order: sums
		held += q.Allocation
		useful += q.Goodput
	}
	if held == 0 || math.Abs(held-r.Allocation) > 1e-9 || math.Abs(useful-r.Goodput) > 1e-9 {
		t.Errorf("queues held %g of the GPU time, %g at work; all held %g, %g at work", held, useful, r.Allocation, r.Goodput)
	}
}

// TestWatchAddsUp: what a watch is told in pieces gives the report's figures, with parts too, and watching changes nothing.
func TestWatchAddsUp(t *testing.T) {
	t.Parallel()
	for _, set := range []func(*Config){
		func(*Config) {},
		func(c *Config) { c.Partitions = true },
		func(c *Config) { c.Strict, c.Order = true, cluster.OrderFIFO },
		func(c *Config) { c.RestartCost, c.Grace, c.Order = secs(20), secs(5), cluster.OrderSRTF },
	} {
		cfg := DefaultConfig()
		set(&cfg)
		unwatched := play(t, cfg, busyTrace(), newScheduler)
		l := &told{}
		cfg.Watch = l.watch()
		r := play(t, cfg, busyTrace(), newScheduler)
		if diff := cmp.Diff(unwatched, r); diff != "" {
			t.Errorf("watching changed the report: %s", diff)
		}
		queuesAddUp(t, r)
		jct, service := 0.0, 0.0
		for _, j := range busyJobs() {
			service += float64(j.GPUs) * j.Length.Seconds()
		}
		jct = r.AvgJCT * float64(r.Done)
		want := service + r.Lost
		if r.Done == r.Jobs && (math.Abs(l.held-want) > 1e-3 || math.Abs(l.holds-want) > 1e-3) {
			t.Errorf("levels hold %.0f GPU s, holds %.0f, want %.0f", l.held, l.holds, want)
		}
		if l.outcomes[Finished] != r.Done || l.outcomes[RefusedJob] != r.Refused || l.started != r.Done {
			t.Errorf("outcomes %v, %d started; report: %d finished, %d refused", l.outcomes, l.started, r.Done, r.Refused)
		}
		if l.starts < r.Done || l.stops < r.Preemptions || l.pending <= 0 || l.pending > jct || len(l.samples) < 20 {
			t.Errorf("%d starts, %d stops, %.0f job s pending of %.0f, %d samples: %+v", l.starts, l.stops, l.pending, jct, len(l.samples), r)
		}
	}
}

// TestSamples: two jobs on 8 GPUs, seen every 30 s. While 4 GPUs are free the one that wants 8 cannot use them.
func TestSamples(t *testing.T) {
	t.Parallel()
	l := &told{}
	cfg := DefaultConfig()
	cfg.Watch = l.watch()
	cfg.Watch.Samplers[0].Every = secs(30)
	play(t, cfg, InMemory([]trace.Job{job(10, 50, 4), job(20, 10, 8)}, nodes(1, 8)), firstFirst)
	got := ""
	for _, s := range l.samples {
		got += strings.Join([]string{s.At.String(), time.Duration(s.All.Held).String(), s.All.AvgAge.String()}, " ") + "; "
	}
	if want := "0s 0s 0s; 30s 4µs 10s; 1m0s 8µs 0s; "; got != want { // a sample sees what its moment has brought
		t.Errorf("got %s want %s", got, want)
	}
	if s := l.samples[1]; s.GPUs != 8 || s.Fragmented != 0.25 || s.All.Pending != 1 || s.All.PendingGPUs != 8*milli {
		t.Errorf("%+v", s)
	}
}

// TestStopped: who watches may end a replay; what had ended by then is reported. An error of a watch is the replay's.
func TestStopped(t *testing.T) {
	t.Parallel()
	l := &told{}
	cfg := DefaultConfig()
	cfg.Watch = l.watch()
	var last Progress
	cfg.Watch.Progress = func(p *Progress) bool {
		last = *p
		if p.Submitted == 200 {
			if state, reason, ok := p.Job(199); !ok || state == "" || reason == "" {
				t.Errorf("job 199 is %q: %q (%v)", state, reason, ok)
			}
		}
		return p.Ended < 100
	}
	r := play(t, cfg, busyTrace(), newScheduler)
	if !r.Partial || r.Done < 100 || r.Done > 110 || last.Total != 400 || last.Ended != r.Done || l.outcomes[Unfinished] == 0 {
		t.Errorf("%d finished, partial %v, %+v, %v", r.Done, r.Partial, last, l.outcomes)
	}
	broken := errors.New("disk full")
	cfg.Watch = &Watch{Outcome: func(*Outcome) error { return broken }}
	if _, err := Run(cfg, busyTrace()); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

// TestWatchUnderFaults: also when machines die, elastic jobs change their size and leaders go, what a watch is told in
// pieces adds up, and watching changes nothing.
func TestWatchUnderFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		cfg := DefaultConfig()
		cfg.Conditions, _ = Preset("stress")
		cfg.Seed = seed
		unwatched, err := Run(cfg, busyTrace())
		if err != nil {
			t.Fatal(err)
		}
		queuesAddUp(t, unwatched)
		l := &told{}
		cfg.Watch = l.watch()
		lost, epochs := 0, 0
		cfg.Watch.Incident = func(x *Incident) {
			switch x.Kind {
			case NodeLost:
				lost++
			case JobFault:
				epochs++
			}
		}
		r, err := Run(cfg, busyTrace())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(unwatched, r); diff != "" {
			t.Errorf("seed %d: watching changed the report: %s", seed, diff)
		}
		if math.Abs(l.held-l.holds) > 1e-3 || l.held <= 0 {
			t.Errorf("seed %d: levels hold %.3f GPU s, holds %.3f", seed, l.held, l.holds)
		}
		if l.outcomes[Finished] != r.Done || l.outcomes[FailedJob] != r.Failed || l.outcomes[Unfinished] != r.Left {
			t.Errorf("seed %d: outcomes %v; report: %d finished, %d failed, %d left", seed, l.outcomes, r.Done, r.Failed, r.Left)
		}
		if lost != r.Failures.NodesLost || epochs == 0 || epochs < r.Failures.Retries {
			t.Errorf("seed %d: %d nodes were lost, %d epochs failed; report: %+v", seed, lost, epochs, r.Failures)
		}
	}
}
