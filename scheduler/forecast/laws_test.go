package forecast

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// drawTown draws a small cluster with jobs that run and jobs that wait, and how
// long each takes.
func drawTown(t *rapid.T) (*town, control.Config) {
	cfg := control.DefaultConfig()
	lengths := map[cluster.JobID]time.Duration{}
	cfg.Planner.Length = func(id cluster.JobID) time.Duration { return lengths[id] }
	w := newTown(t)
	w.st = control.NewStepper(cfg)
	p := cluster.DefaultPolicy()
	p.Order = rapid.SampledFrom([]cluster.OrderName{cluster.OrderGangline, cluster.OrderFIFO, cluster.OrderLAS}).Draw(t, "order")
	p.Backfill.Off = rapid.IntRange(0, 5).Draw(t, "backfill") == 0
	p.Preemption.Off = rapid.Bool().Draw(t, "preemption")
	w.apply(&cluster.SetPolicy{Policy: p, Any: true})
	nodes := rapid.IntRange(1, 4).Draw(t, "nodes")
	for i := range nodes {
		w.apply(&cluster.RegisterNode{Node: machine(fmt.Sprint("n", i), 4, "h100", fmt.Sprint("r", i%2))})
	}
	for i := range rapid.IntRange(4, 14).Draw(t, "jobs") {
		s := spec("default", int32(rapid.IntRange(1, 4*nodes).Draw(t, "gpus")))
		s.Priority = rapid.SampledFrom([]int32{10, 50}).Draw(t, "priority")
		s.Preemptible = rapid.Bool().Draw(t, "preemptible")
		if rapid.IntRange(0, 2).Draw(t, "limited") == 0 {
			s.TimeLimit = time.Duration(rapid.IntRange(10, 90).Draw(t, "limit")) * time.Minute
		}
		r := w.apply(&cluster.SubmitJob{RequestID: fmt.Sprint(i), User: "ann", Spec: s})
		lengths[r.Job] = time.Duration(rapid.IntRange(60, 7200).Draw(t, "length")) * time.Second
		w.live(w.now.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "pass"))*time.Second), cfg, 0)
	}
	return w, cfg
}

// live lets a town live until a time, or until a job starts: what ends ends, and
// the leader steps whenever something happens and whenever it asked to. It
// returns when the job started, or 0.
func (w *town) live(until cluster.Time, cfg control.Config, target cluster.JobID) cluster.Time {
	w.t.Helper()
	for range 100_000 {
		cmds, next := w.st.Step(w.s, nil, w.now)
		var stops []cluster.JobID
		for _, c := range cmds {
			if w.try(c).Code != cluster.OK {
				continue
			}
			switch c := c.(type) {
			case *cluster.StartJob:
				if c.Job == target {
					return w.now
				}
				w.report(c.Job, cluster.WorkerRunning, 0)
			case *cluster.EvictJob:
				stops = append(stops, c.Job)
			}
		}
		for _, id := range stops {
			w.report(id, cluster.WorkerExited, 0)
		}
		if len(stops) > 0 {
			continue // the leader sees it and steps at once
		}
		at := until
		if next != 0 {
			at = min(at, max(next, w.now.Add(time.Millisecond)))
		}
		var due []cluster.JobID
		w.s.EachHolding(func(j *cluster.Job) bool {
			end := w.endOf(j, cfg)
			if end < at {
				at, due = end, due[:0]
			}
			if end == at {
				due = append(due, j.ID)
			}
			return true
		})
		if at > w.now {
			w.now = at
		}
		if w.now >= until {
			return 0
		}
		for _, id := range due {
			if w.s.Job(id).State.Holding() {
				w.exit(id, 0)
			}
		}
	}
	w.t.Fatalf("the town does not come to its end")
	return 0
}

// endOf is when a job has had all that it needs: by trying.
func (w *town) endOf(j *cluster.Job, cfg control.Config) cluster.Time {
	total := cfg.Planner.Length(j.ID).Milliseconds() * int64(j.Spec.GPUs) * cluster.WholeGPU
	low, high := j.StartedAt-1, j.StartedAt.Add(100*24*time.Hour)
	for high-low > 1 {
		if mid := low + (high-low)/2; j.AttainedAt(mid) >= total {
			high = mid
		} else {
			low = mid
		}
	}
	return max(high, w.now)
}

// TestForecastComesTrue: where the lengths of jobs are known, a job starts when
// the forecast says.
func TestForecastComesTrue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w, cfg := drawTown(t)
		var ids []cluster.JobID
		w.s.EachPending(func(j *cluster.Job) bool {
			ids = append(ids, j.ID)
			return true
		})
		if len(ids) == 0 {
			return
		}
		id := rapid.SampledFrom(ids).Draw(t, "job")
		a := New(cfg).Look(w.s.Snapshot(), w.now, Question{Job: id, Work: 1 << 40}).Answer()
		if a.Start.Basis != BasisExact && a.Fit == nil {
			t.Fatalf("the estimate goes by %d", a.Start.Basis)
		}
		w.st = control.NewStepper(cfg) // a new leader, as the forecast's is
		began := w.now
		if got := w.live(w.now.Add(horizon), cfg, id); got != a.Start.P50 {
			t.Fatalf("job %d is foretold to start %s later (%+v), and starts %s later", id, a.Start.P50.Sub(began), a.Start, got.Sub(began))
		}
	})
}

// TestPaceCostsLittle: runs that look thoroughly the more seldom the further
// ahead they are say nearly the same.
func TestPaceCostsLittle(t *testing.T) {
	t.Parallel()
	type drawn struct {
		w   *town
		cfg control.Config
	}
	towns := rapid.Custom(func(t *rapid.T) drawn {
		w, cfg := drawTown(t)
		return drawn{w, cfg}
	})
	asked, near := 0, 0
	for seed := range 120 {
		d := towns.Example(seed)
		s, now := d.w.s.Snapshot(), d.w.now
		f := New(d.cfg)
		s.EachPending(func(j *cluster.Job) bool {
			c := f.Look(s, now, Question{Job: j.ID})
			if c.answer.Fit != nil {
				return true
			}
			l := newLengths(s, now, d.cfg.Planner.Length)
			run := func(p pace) time.Duration {
				w, target := c.begin(start{lengths: l, work: 1 << 40, pace: p})
				w.until(target)
				return w.now.Sub(now)
			}
			exact, coarse := run(pace{floor: time.Second}), run(pace{floor: time.Second, part: 32})
			if asked++; (coarse - exact).Abs() <= exact/20+5*time.Second {
				near++
			}
			return true
		})
	}
	if asked < 50 || near*5 < asked*4 {
		t.Errorf("of %d estimates, %d are within a twentieth of what they would be", asked, near)
	}
}

// TestAnswersAreFunctions: equal questions have equal answers, whoever asks, and
// a question changes nothing.
func TestAnswersAreFunctions(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w, cfg := drawTown(t)
		cfg.Planner.Length = nil
		before := w.s.Hash()
		f := New(cfg)
		w.s.EachPending(func(j *cluster.Job) bool {
			q := Question{Job: j.ID, Work: 20_000}
			if j.ID%2 == 0 {
				q = Question{Spec: j.Spec, User: "bob", Work: 20_000}
			}
			first := f.Look(w.s.Snapshot(), w.now, q).Answer()
			second := New(cfg).Look(w.s.Snapshot(), w.now, q).Answer()
			if diff := cmp.Diff(first, second); diff != "" {
				t.Fatalf("the same question has two answers:\n%s", diff)
			}
			if !slices.IsSortedFunc(first.Changes, func(a, b Change) int { return int(late(a.At(w.now)) - late(b.At(w.now))) }) {
				t.Fatalf("not sorted: %s", first.Summary())
			}
			return true
		})
		if w.s.Hash() != before {
			t.Fatalf("asking has changed the state")
		}
	})
}

func late(t cluster.Time) cluster.Time {
	if t == 0 {
		return math.MaxInt64
	}
	return t
}

// TestWorkIsBounded: whatever an answer may cost, it costs hardly more.
func TestWorkIsBounded(t *testing.T) {
	t.Parallel()
	w := bigTown(t, 32, maxWaiting+300)
	f := New(control.DefaultConfig())
	s := w.s.Snapshot()
	var ids []cluster.JobID
	s.EachPending(func(j *cluster.Job) bool {
		ids = append(ids, j.ID)
		return true
	})
	for _, work := range []int64{1, 30_000, 100_000} {
		for i := range 3 {
			c := f.Look(s, w.now, Question{Job: ids[i*len(ids)/3], Work: work})
			waiting, _ := c.waitingFor(&try{place: c.answer.Place})
			if len(waiting) > 2*maxWaiting+1 {
				t.Fatalf("%d jobs wait in a run", len(waiting))
			}
			l := newLengths(s, w.now, nil)
			run, target := c.begin(start{lengths: l, waiting: waiting, work: work, pace: paceFor(s, c.cfg, work)})
			run.until(target)
			setup := setupCost(s, len(waiting))
			// The last step may start as many jobs as there is room for.
			if over := -run.left; over > setup+thoroughCost(s)+int64(32*8*2*workPerCommand) {
				t.Errorf("a run that may cost %d cost %d more", work, over)
			}
			if a := c.Answer(); len(a.Changes) > maxChanges || a.Start.Runs > maxRuns || a.Start.Runs < 1 {
				t.Errorf("%d changes, %d runs", len(a.Changes), a.Start.Runs)
			}
		}
	}
}

// TestQuantiles: over jobs they are spread evenly, and so are the runs of one job.
func TestQuantiles(t *testing.T) {
	t.Parallel()
	sum := 0.0
	for id := range cluster.JobID(1000) {
		var of []float64
		for run := range 16 {
			q := quantile(id, run)
			if q <= 0 || q >= 1 {
				t.Fatalf("job %d, run %d: %g", id, run, q)
			}
			of = append(of, q)
		}
		sum += of[0]
		slices.Sort(of)
		for i := 1; i < len(of); i++ {
			if gap := of[i] - of[i-1]; math.Abs(gap-1.0/16) > 1e-6 {
				t.Fatalf("job %d: runs at %g and %g", id, of[i-1], of[i])
			}
		}
	}
	if mean := sum / 1000; mean < 0.47 || mean > 0.53 {
		t.Errorf("the mean over jobs is %g", mean)
	}
}
