package trace

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// made takes all jobs of a synthetic workload.
func made(t *testing.T, c Synthetic) []Job {
	t.Helper()
	jobs, _, err := all(c.Open())
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

// near reports whether two figures are as close as a sample of that size allows.
func near(got, want, part float64) bool { return math.Abs(got-want) <= part*want }

// TestSyntheticIsAsAsked: load, sizes, lengths and the shape of the week come out as they were asked for.
func TestSyntheticIsAsAsked(t *testing.T) {
	t.Parallel()
	c := DefaultSynthetic()
	c.Jobs, c.GPUs, c.Load, c.Day, c.Weekend = 40000, 1000, 0.8, 0.5, 0.4
	c.Sizes = []Size{{1, 3}, {8, 1}}
	jobs := made(t, c)
	if diff := cmp.Diff(jobs, made(t, c)); diff != "" {
		t.Fatal("the same seed gave others:", diff)
	}
	work, ones := 0.0, 0
	var lengths []time.Duration
	var hours [hoursOfWeek]float64
	for i, j := range jobs {
		if j.Submit > 0 && i > 0 && j.Submit < jobs[i-1].Submit {
			t.Fatalf("job %d comes before the one before it", i)
		}
		work += float64(j.GPUs) * j.Length.Seconds()
		lengths = append(lengths, j.Length)
		if j.GPUs == 1 {
			ones++
		}
		hours[int(j.Submit/time.Hour)%hoursOfWeek]++
	}
	slices.Sort(lengths)
	span := jobs[len(jobs)-1].Submit.Seconds()
	if load := work / span / 1000; !near(load, 0.8, 0.1) {
		t.Errorf("load %.3f, want 0.8", load)
	}
	if !near(float64(ones), 30000, 0.02) {
		t.Errorf("%d of 40000 jobs want one GPU, want 30000", ones)
	}
	if p50, p90 := lengths[20000], lengths[36000]; !near(p50.Seconds(), 600, 0.06) || !near(p90.Hours(), 4, 0.1) {
		t.Errorf("lengths: median %s and p90 %s, want 10m and 4h", p50, p90)
	}
	day, night, off := 0.0, 0.0, 0.0
	for h, n := range hours {
		switch {
		case h < 120 && h%24 >= 12 && h%24 < 18:
			day += n / 30
		case h < 120 && h%24 < 6:
			night += n / 30
		case h >= 120:
			off += n / 48
		}
	}
	if whole := span / 3600 / hoursOfWeek; whole > 2 && (day < 1.8*night || off > day) {
		t.Errorf("%.0f arrive in an hour of the day, %.0f at night, %.0f at the weekend", day, night, off)
	}
}

// TestSyntheticLike: twice the rate of a trace, with its mix of jobs, and none in its idle hours.
func TestSyntheticLike(t *testing.T) {
	t.Parallel()
	var model []Job
	for i := range 3000 { // five a minute from 8:00 to 18:00, of two kinds that differ in all
		j := Job{Submit: time.Duration(i/600)*24*time.Hour + 8*time.Hour + time.Duration(i%600)*time.Minute, GPUs: 1, Milli: 500, Length: secs(100), Queue: "a", User: "x"}
		if i%3 == 0 {
			j.GPUs, j.Milli, j.Length, j.Queue, j.User = 8, 1000, secs(1000), "b", "y"
		}
		model = append(model, j)
	}
	c := DefaultSynthetic()
	c.Scale, c.Like = 2, func() (Source, error) { return Slice(model), nil }
	jobs := made(t, c)
	if len(jobs) != 6000 || !near(jobs[5999].Submit.Hours(), model[2999].Submit.Hours(), 0.1) {
		t.Errorf("%d jobs in %s, want 6000 in %s", len(jobs), jobs[len(jobs)-1].Submit, model[2999].Submit)
	}
	big := 0
	for _, j := range jobs {
		isBig := j.GPUs == 8
		if isBig {
			big++
		}
		if isBig != (j.Queue == "b") || isBig != (j.User == "y") || isBig != (j.Milli == 1000) || isBig != (j.Length > secs(400)) {
			t.Fatalf("a job of neither kind: %+v", j)
		}
		if h := j.Submit / time.Hour % 24; h < 8 || h >= 18 {
			t.Fatalf("a job at %s, when the trace had none", j.Submit)
		}
	}
	if !near(float64(big), 2000, 0.07) {
		t.Errorf("%d large jobs, want about 2000", big)
	}
}

// TestSyntheticRefuses: what makes no sense is refused before anything runs.
func TestSyntheticRefuses(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		want string
		set  func(*Synthetic)
	}{
		{"load: -1 is not in", func(c *Synthetic) { c.Load = -1 }},
		{"load: NaN is not in", func(c *Synthetic) { c.Load = math.NaN() }},
		{"scale: 0", func(c *Synthetic) { c.Scale = 0 }},
		{"length: a median", func(c *Synthetic) { c.Median = c.P90 + 1 }},
		{"sizes: there are none", func(c *Synthetic) { c.Sizes = nil }},
		{"weight of 4 GPUs is 0", func(c *Synthetic) { c.Sizes = []Size{{4, 0}} }},
		{"a load needs a cluster", func(c *Synthetic) { c.GPUs = 0 }},
		{"two jobs or more", func(c *Synthetic) { c.Like = func() (Source, error) { return Slice([]Job{{}}), nil } }},
	} {
		c := DefaultSynthetic()
		c.GPUs = 8
		x.set(&c)
		if _, err := c.Open(); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("error %v, want %q in it", err, x.want)
		}
	}
	c := DefaultSynthetic()
	c.GPUs, c.Jobs, c.Load = 1, 1e9, 1e-6
	if _, _, err := all(c.Open()); err == nil || !strings.Contains(err.Error(), "ask for fewer jobs") {
		t.Errorf("error %v for a workload of ages", err)
	}
}
