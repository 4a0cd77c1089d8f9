package sim

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

func stepOnce(s *cluster.State, leases control.Leases, now cluster.Time) []cluster.Command {
	return control.Step(s, leases, now, control.DefaultConfig())
}

// TestPlantedBugs proves that the checks can fail: each bug is one that a scheduler could really have.
func TestPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, bug := range []struct {
		name  string
		plant func(*world)
		want  string // in the error
	}{
		{"a submission is acknowledged and dropped", func(w *world) {
			w.tamper = func(c cluster.Command) cluster.Command {
				if s, ok := c.(*cluster.SubmitJob); ok && s.RequestID == "request-7" {
					return nil
				}
				return c
			}
		}, "request-7"},
		{"a retry makes a second job", func(w *world) {
			n := 0
			w.tamper = func(c cluster.Command) cluster.Command {
				if s, ok := c.(*cluster.SubmitJob); ok {
					if n++; n > 10 {
						twin := *s
						twin.RequestID = "request-0"
						return &twin
					}
				}
				return c
			}
		}, "acknowledged as job"},
		{"workers of a lost node are forgotten, and agents do not wait for their GPUs", func(w *world) {
			w.greedy = true
			w.tamper = func(c cluster.Command) cluster.Command {
				if r, ok := c.(*cluster.RegisterNode); ok {
					bare := *r
					bare.Running = nil
					return &bare
				}
				return c
			}
		}, "is used by workers"},
		{"a job starts before the one that it is to follow", func(w *world) {
			w.set.Varied = true
			w.tamper = func(c cluster.Command) cluster.Command {
				if s, ok := c.(*cluster.SubmitJob); ok && s.Spec.After != nil {
					free := *s
					spec := *s.Spec
					spec.After = nil
					free.Spec = &spec
					return &free
				}
				return c
			}
		}, "has started after"},
		{"a follower skips an entry", func(w *world) {
			w.servers.deaf = func(server int, index uint64) bool { return server == 1 && index == 40 }
		}, "states differ"},
		{"the state is broken", func(w *world) {
			w.checks.check = func(s *cluster.State) error {
				if s.Jobs() > 3 {
					return errors.New("GPU held twice")
				}
				return nil
			}
		}, "GPU held twice"},
		{"exits are never taken in", func(w *world) {
			w.tamper = func(c cluster.Command) cluster.Command {
				r, ok := c.(*cluster.ReportWorkers)
				if !ok {
					return c
				}
				some := &cluster.ReportWorkers{Node: r.Node}
				for _, x := range r.Workers {
					if !x.State.Ended() {
						some.Workers = append(some.Workers, x)
					}
				}
				return some
			}
		}, "not live"},
		{"a plan is refused by its own state", func(w *world) {
			w.tamper = func(c cluster.Command) cluster.Command {
				if s, ok := c.(*cluster.StartJob); ok {
					bad := *s
					bad.Epoch++
					return &bad
				}
				return c
			}
		}, "its own state refuses"},
		{"a job keeps an epoch that it started before", func(w *world) {
			w.clock.after(30*time.Minute, func() {
				for _, j := range w.clients.jobs {
					j.epoch += 2
				}
			})
		}, "from epoch"},
	} {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			caught := 0
			for seed := uint64(1); seed <= 12 && caught == 0; seed++ {
				w := newWorld(Draw(small(seed)))
				bug.plant(w)
				if err := w.run(); err != nil {
					if caught++; !strings.Contains(err.Error(), bug.want) {
						t.Errorf("caught as %q, want it to say %q", err, bug.want)
					}
				}
			}
			if caught == 0 {
				t.Error("not caught by 12 seeds")
			}
		})
	}
}

// TestErrorRepeats: a failure names its seed, its command line and what came before it.
func TestErrorRepeats(t *testing.T) {
	t.Parallel()
	ninth := small(9)
	w := newWorld(Draw(ninth))
	for range 30 {
		w.note("", &cluster.CancelJob{Job: 4}, -1)
	}
	err := error(&Error{Seed: 9, Command: ninth.Command(), Events: w.trace.lines(), Cause: errors.New("boom")})
	for _, want := range []string{"seed 9", "gangline sim run --seed 9 --nodes 5 --gpus-per-node 4 --jobs 30 --faults=true", "boom", "CancelJob 4"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if n := strings.Count(err.Error(), "CancelJob"); n != traceLen {
		t.Errorf("shows %d events, want %d", n, traceLen)
	}
}

// TestHeap: events come by time, and in the order of their planning within one time.
func TestHeap(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var h heap
	for i := range uint64(2000) {
		h.push(event{at: cluster.Time(rng.IntN(50)), seq: i})
		if rng.IntN(3) == 0 {
			h.pop()
		}
	}
	for last := h.pop(); len(h) > 0; {
		e := h.pop()
		if !last.before(&e) {
			t.Fatalf("event %d at %d came after event %d at %d", e.seq, e.at, last.seq, last.at)
		}
		last = e
	}
}
