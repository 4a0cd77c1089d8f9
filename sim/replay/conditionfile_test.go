package replay

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/sim/trace"
)

// TestPresets: each is valid, and its file says the same.
func TestPresets(t *testing.T) {
	t.Parallel()
	for _, name := range Presets() {
		c, ok := Preset(name)
		if !ok {
			t.Fatalf("%s is not there", name)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := ParseConditions([]byte("preset: stress\n" + c.Format()))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.Format(), again.Format()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, ok := Preset("other"); ok {
		t.Error("a preset that nobody named")
	}
}

// TestPublishedRates: Llama 3's rates give its 419 interruptions in 54 days on 2,048 nodes, RSC-1's its 1.8 h.
func TestPublishedRates(t *testing.T) {
	t.Parallel()
	c, _ := Preset("llama3")
	if n := 54 * (2048*c.Nodes.PerDay + 16384*(c.GPUs.PerDay+c.Workers.PerDay)); math.Abs(n-419) > 1e-6 {
		t.Errorf("%g interruptions", n)
	}
	c, _ = Preset("rsc")
	if h := 24 / (2048 * c.Nodes.PerDay); math.Abs(h-1.8) > 1e-9 {
		t.Errorf("%g h to a failure", h)
	}
}

// TestConditionsFile: what is not named is the preset's; what is wrong is told, all at once and with its place.
func TestConditionsFile(t *testing.T) {
	t.Parallel()
	c, err := ParseConditions([]byte("preset: costs\nnodes: {per_day: 0.5, repair: 3h, spread: exponential}\nelastic:\n  jobs: 0.2\n  curve: [[1, 1], [4, 3]]\n"))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := Preset("costs")
	want.Nodes = FaultRate{PerDay: 0.5, Repair: 3 * time.Hour, Spread: Exponential}
	want.Elastic.Jobs, want.Elastic.Curve = 0.2, []CurvePoint{{1, 1}, {4, 3}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	for file, want := range map[string]string{
		"":                                  "the file is empty",
		"[]":                                "must be a map",
		"preset: x":                         "line 1, column 9: preset: \"x\" is not one of default, llama3",
		"nodes: {per_dy: 1}":                `there is no field nodes.per_dy (did you mean "nodes.per_day"?)`,
		"lease: 5":                          `lease: "5" is not a duration with a unit`,
		"lease: 5s\nlease: 6s":              "line 2, column 1: lease is given twice",
		"lease: {a: 1}":                     "lease must be one value",
		"start: {spread: wide}":             `start.spread: "wide" is not a number of at least 0, and not exponential`,
		"start: {spread: 9}":                "start.spread: 9 is not in 0..4",
		"retries: x":                        `retries: "x" is not a whole number`,
		"retries: -1":                       "retries: -1 is not in 0..1000",
		"nodes: {repair: 9999h}":            "nodes.repair: 9999h0m0s is not in",
		"nodes: 1":                          "nodes must be a map of fields",
		"elastic: {curve: 1}":               "",
		"elastic: {curve: [1]}":             "elastic.curve: each point is [GPUs, speed]",
		"elastic: {curve: [[2, 2], [1,1]]}": "1 GPUs come after 2",
		"elastic: {curve: [[1, 2]]}":        "[1, 1]",
		"elastic: {curve: [[0, 2]]}":        "multiples above 0",
		"elastic: {jobs: 1, max: 0.5}":      "0 < min <= 1 <= max",
	} {
		if _, err := ParseConditions([]byte(file)); want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: error %v, want %q in it", file, err, want)
		}
	}
}

// TestAutoInterval: a file may leave it to Young and Daly how often to save. Each gang then saves by its own size: with
// a failure of one of its GPUs each day, 64 of them fail each 22 min, and what is lost is less than with fixed intervals.
func TestAutoInterval(t *testing.T) {
	t.Parallel()
	const file = "preset: costs\ncheckpoint: {interval: %s, cost: 10s}\nworkers: {per_day: 1}\nretries: 1000\n"
	lost := map[string]float64{}
	for _, every := range []string{autoWord, "15s", "1m", "40m"} {
		c, err := ParseConditions([]byte(strings.Replace(file, "%s", every, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if every == autoWord && (c.Checkpoint.Interval != Auto || !strings.Contains(c.Format(), "  interval: auto ")) {
			t.Fatalf("%s: %s", c.Checkpoint.Interval, c.Format())
		}
		cfg := DefaultConfig()
		cfg.Conditions = c
		r := play(t, cfg, InMemory([]trace.Job{job(0, 100_000, 64)}, nodes(8, 8)), newScheduler)
		if r.Done != 1 {
			t.Fatalf("%s: %+v", every, r)
		}
		lost[every] = r.LostGPU.Checkpoint + r.LostGPU.Repeated
	}
	for _, every := range []string{"15s", "1m", "40m"} {
		if lost[autoWord] > 0.95*lost[every] {
			t.Errorf("%.0f GPU s are lost with the interval left to Young and Daly, %.0f with %s", lost[autoWord], lost[every], every)
		}
	}
	c, _ := Preset("costs")
	c.Checkpoint.Interval = Auto
	cfg := DefaultConfig()
	cfg.Conditions = c
	r := play(t, cfg, InMemory([]trace.Job{job(0, 100_000, 64)}, nodes(8, 8)), newScheduler)
	if r.LostGPU.Checkpoint != 0 {
		t.Errorf("where nothing fails %.0f GPU s go into checkpoints", r.LostGPU.Checkpoint)
	}
}

// TestSpread: draws have the mean that they are said to have, whatever their spread.
func TestSpread(t *testing.T) {
	t.Parallel()
	for _, sigma := range []float64{0, 0.5, 1, Exponential} {
		rng := rand.New(rand.NewPCG(1, 2))
		var all []float64
		sum := 0.0
		for range 20000 {
			x := spread(rng, time.Minute, sigma).Seconds()
			all, sum = append(all, x), sum+x
		}
		slices.Sort(all)
		if mean := sum / 20000; math.Abs(mean-60) > 2 {
			t.Errorf("spread %g: mean %g s, want 60", sigma, mean)
		}
		median := map[float64]float64{0: 60, 0.5: 60 * math.Exp(-0.125), 1: 60 * math.Exp(-0.5), Exponential: 60 * math.Ln2}[sigma]
		if got := all[10000]; math.Abs(got-median) > 2 {
			t.Errorf("spread %g: median %g s, want %g", sigma, got, median)
		}
	}
}
