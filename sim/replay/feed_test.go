package replay

import (
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// endless is a workload that is far too long to keep: a job of one GPU each second.
type endless struct {
	trace.Source
	n, most int
}

func (e *endless) Next(j *trace.Job) error {
	if e.n == e.most {
		return io.EOF
	}
	e.n++
	*j = job(e.n, 1+e.n%7, 1)
	return nil
}

// TestOnlyUnfinishedAreKept: what has ended is forgotten, and so are its figures beyond a number of jobs.
func TestOnlyUnfinishedAreKept(t *testing.T) {
	t.Parallel()
	const jobs = 20000
	most := 0
	exact := &Report{}
	for _, limit := range []int{jobs, 100} {
		cfg := DefaultConfig()
		cfg.Exact = limit
		src := &endless{Source: trace.Slice(nil), most: jobs}
		tr := &Trace{Open: func() (trace.Source, error) { return src, nil }, Nodes: nodes(1, 8)}
		r, err := runWith(&cfg, tr, func(w *world) scheduler {
			first := firstFirst(w)
			return stepFunc(func(s *cluster.State, now cluster.Time) ([]cluster.Command, cluster.Time) {
				most = max(most, w.jobs.Len())
				if limit == 100 && w.tally.ended > limit && (w.tally.exact != 0 || w.tally.of("default").jct.sketch == nil) {
					t.Error("times are still kept one by one")
				}
				return first.Step(s, now)
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if limit == jobs {
			exact = r
			continue
		}
		if r.Inexact != sketchError || exact.Inexact != 0 || r.Done != jobs || r.StateHash != exact.StateHash {
			t.Errorf("%+v", r)
		}
		for _, f := range [][2]float64{
			{r.AvgJCT, exact.AvgJCT},
			{r.P50JCT, exact.P50JCT},
			{r.P99JCT, exact.P99JCT},
			{r.AvgWait, exact.AvgWait},
			{r.P99Wait, exact.P99Wait},
			{r.P99Fairness, exact.P99Fairness},
			{r.MaxFairness, exact.MaxFairness},
			{r.PerQueue["default"].P99JCT, exact.PerQueue["default"].P99JCT},
		} {
			if math.Abs(f[0]-f[1]) > 1.01*sketchError*f[1] {
				t.Errorf("%g by the sketch, %g exactly", f[0], f[1])
			}
		}
	}
	if most > 8+1 {
		t.Errorf("%d jobs were kept at one time; at most 8 run and one comes", most)
	}
}

// TestOutOfOrder: a source that goes back in time is refused, and its own errors are told.
func TestOutOfOrder(t *testing.T) {
	t.Parallel()
	_, err := Run(DefaultConfig(), InMemory([]trace.Job{job(9, 1, 1), job(3, 1, 1)}, nodes(1, 8)))
	if err == nil || !strings.Contains(err.Error(), "job 3 comes at 3s, after one of 9s") {
		t.Errorf("error %v", err)
	}
	broken := errors.New("disk full")
	for _, set := range []func(*Config){func(*Config) {}, func(c *Config) { c.Quotas = true }} {
		cfg := DefaultConfig()
		set(&cfg)
		_, err = Run(cfg, &Trace{Nodes: nodes(1, 8), Open: func() (trace.Source, error) {
			return &failing{trace.Slice(nil), broken, secs(5)}, nil
		}})
		if !errors.Is(err, broken) {
			t.Errorf("error %v, want %v", err, broken)
		}
	}
}

// failing gives one job, then an error.
type failing struct {
	trace.Source
	err  error
	once time.Duration
}

func (f *failing) Next(j *trace.Job) error {
	if f.once == 0 {
		return f.err
	}
	f.once = 0
	*j = job(1, 1, 1)
	return nil
}
