package assertion

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/yamlfile"
	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// parsed reads a file with one base run, another run "fifo" and some assertions.
func parsed(t *testing.T, assertions ...string) *File {
	t.Helper()
	text := "run: {jobs: j.csv}\nruns:\n  fifo: {order: fifo}\nassert:\n"
	for _, a := range assertions {
		text += "- " + a + "\n"
	}
	f, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// play replays three jobs on one node of 8 GPUs in both runs: ann's two of queue a, 100 s each, and bob's of queue b, 50 s,
// all submitted at once or 10 s apart, strictly in their order; by the shortest in the run fifo, whatever its name says.
func play(t *testing.T, f *File, until time.Duration) *Result {
	t.Helper()
	job := func(id string, at, length int, gpus int32, user, queue string) trace.Job {
		return trace.Job{
			ID: id, Submit: time.Duration(at) * time.Second, Length: time.Duration(length) * time.Second, Guess: time.Duration(length) * time.Second,
			GPUs: gpus, Milli: 1000, User: user, Queue: queue,
		}
	}
	jobs := []trace.Job{
		job("j1", 0, 100, 8, "ann", "a"), job("j2", 10, 100, 8, "ann", "a"), job("j3", 20, 50, 8, "bob", "b"), job("big", 20, 50, 32, "bob", "b"),
	}
	var ran []*Ran
	for _, run := range f.Runs {
		cfg := replay.DefaultConfig()
		cfg.Strict, cfg.Order, cfg.Until = true, "fifo", until
		if run.Name == "fifo" {
			cfg.Order = "sjf"
		}
		c := f.Collector(run.Name)
		cfg.Watch = c.Watch()
		rep, err := replay.Run(cfg, replay.InMemory(jobs, []trace.Node{{Name: "n", GPUs: 8, Type: "x"}}))
		if err != nil {
			t.Fatal(err)
		}
		ran = append(ran, &Ran{run.Name, rep, c})
	}
	return f.Judge("test.yaml", ran)
}

// TestFound replays a workload of which all waits are known, and holds what quantities are found to be.
func TestFound(t *testing.T) {
	t.Parallel()
	// j1 runs 0..100, j2 100..200 and j3 200..250; in the other run j3 comes before j2.
	want := map[string]float64{
		"avg_wait >= 0s": (0 + 90 + 180) / 3.0, "p50_wait > 0s": 90, "max_wait > 0s": 180, "p95_wait >= 0s": 171, "p99.9_wait >= 0s": 179.82,
		"queue a avg_wait > 0s": 45, "queue b max_jct > 0s": 230, "user ann p50_first_wait > 0s": 45, "user bob jobs >= 0": 2,
		"job j3 started > 0s": 200, "job j3 ended > 0s": 250, "job j2 wait > 0s": 90, "job j2 jct > 0s": 190, "job j1 finished == 1": 1,
		"jobs > 0": 4, "finished == jobs": 3, "refused == 1": 1, "unfinished == 0": 0, "preemptions == 0": 0, "makespan > 0s": 250,
		"longest_wait > 0s": 180, "queue a longest_wait < 1h": 90, "fifo.max_wait > 0s": 140, "job j3 fifo.started < 2m": 100,
		// Jobs come within 20 s, in which the first holds all.
		"gpu_allocation >= 80%": 1, "queue a gpu_allocation > 0": 1, "queue b gpu_goodput == 0": 0,
	}
	var texts []string
	for text := range want { // any order: each is alone
		texts = append(texts, text)
	}
	f := parsed(t, texts...)
	for _, v := range play(t, f, 0).Verdicts {
		if v.Found == nil || math.Abs(*v.Found-want[v.Text]) > 1e-9 {
			t.Errorf("%s: found %v (%s), want %g", v.Text, v.Found, v.Problem, want[v.Text])
		}
		if v.OK != (v.Text != "finished == jobs") {
			t.Errorf("%s: ok is %v", v.Text, v.OK)
		}
	}
}

// TestUnfinishedJobsStarve holds that a job which still waits in the end counts for longest_wait, and for no average.
func TestUnfinishedJobsStarve(t *testing.T) {
	t.Parallel()
	f := parsed(t, "longest_wait < 1m", "job j3 longest_wait < 1m", "job j3 started < 1h", "job j3 wait < 1h", "unfinished == 2", "max_wait < 1s",
		"avg_wait <= 2 * fifo.avg_wait", "queue b avg_wait < 1h", "queue c jobs == 0", "user eve preemptions < 5")
	r := play(t, f, 150*time.Second)
	for i, want := range []string{
		"130 s", "130 s", "it has not started", "it has not finished", "2", "0 s", "0 s", "no such job finished", "the workload has no queue c",
		"the workload has no user eve",
	} {
		v := &r.Verdicts[i]
		got := v.Problem
		if v.Found != nil {
			if got = strings.TrimSuffix(strings.TrimSpace(fmt.Sprintf("%g s", *v.Found)), ""); v.unit != seconds {
				got = fmt.Sprint(*v.Found)
			}
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", v.Text, got, want)
		}
		if ok := i == 4 || i == 5 || i == 6; v.OK != ok {
			t.Errorf("%s: ok is %v", v.Text, v.OK)
		}
	}
	if r.Failed != 7 {
		t.Errorf("%d failed, want 7", r.Failed)
	}
}

// TestProblems holds that what is wrong with a file is told with its place.
func TestProblems(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"":                       "is empty",
		"[1]":                    "line 1, column 1: the file must be a map, not a list",
		"run: {a: 1}\nasert: []": "line 2, column 1: unknown field \"asert\" (did you mean \"assert\"?)",
		"assert: [jobs > 1]":     "line 1, column 1: run is missing",
		"run: {a: 1}":            "assert must be a list",
		"run: {a: 1}\nassert: [jobs > 1]\nruns: {base: {a: 2}}": "line 3, column 8: \"base\" cannot be a run's name",
		"run: {a: {b: [{}]}}\nassert: [jobs > 1]":               "line 1, column 15: run.a.b: expected a single value, not a map",
		"run: {a: }\nassert: [jobs > 1]":                        "line 1, column 7: run.a has no value",
		"run: {a: 1, a: 2}\nassert: [jobs > 1]":                 "line 1, column 13: \"a\" is given twice",
		"run: {a: 1}\nassert:\n- {that: jobs > 1, nme: x}":      "line 3, column 20: unknown field of an assertion \"nme\"",
	} {
		if _, err := Parse([]byte(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", file, err, want)
		}
	}
	for text, want := range map[string]string{
		"p95_wait":                     "there is nothing that it is compared with",
		"p95_wait <":                   "nothing follows <",
		"p95_wait < 10":                "\"10\" is not a duration with a unit",
		"p95_wait < 10%":               "is not a duration",
		"p100_wait < 1m":               "a quantile such as p95_wait",
		"p95_wiat < 1m":                "\"p95_wiat\" is nothing that all jobs have",
		"preemptions < 5m":             "\"5m\" is not a number",
		"gpu_allocation >= much":       "\"much\" is nothing that all jobs have",
		"avg_wait < jobs":              "cannot be compared",
		"las.avg_wait < 5m":            "\"las\" is not a run of this file",
		"queue < 5":                    "which queue?",
		"queue a makespan < 5m":        "nothing that a queue's jobs have",
		"job x p95_wait < 5m":          "nothing that single jobs have",
		"jobs of a < 5":                "is not [queue NAME",
		"avg_wait < 2 * 5m":            "nothing that all jobs have",
		"avg_wait < x * fifo.avg_wait": "\"x\" is not a number to multiply with",
		"user \"eve < 5":               "is never closed",
	} {
		f, err := Parse([]byte("run: {a: 1}\nruns: {fifo: {a: 2}}\nassert:\n- '" + text + "'\n- jobs > 0"))
		var at *yamlfile.Error
		if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &at) || at.Line != 4 || at.Column != 3 {
			t.Errorf("%s: got %v, want %s at line 4, column 3 (%v)", text, err, want, f)
		}
	}
}

func TestQuotedNames(t *testing.T) {
	t.Parallel()
	f := parsed(t, `'user "Ann B. < C" preemptions<=3'`)
	if q := f.Assertions[0].Left; q.Name != "Ann B. < C" || f.Assertions[0].Op != "<=" || f.Assertions[0].Value != 3 {
		t.Errorf("got %+v", f.Assertions[0])
	}
}

func TestWritten(t *testing.T) {
	t.Parallel()
	f := parsed(t, "{name: quick, that: max_wait < 1m}", "gpu_allocation >= 80%", "queue c jobs == 0", "avg_jct < 0.5 * fifo.avg_jct")
	r := play(t, f, 0)
	var text, xml bytes.Buffer
	if err := errors.Join(r.WriteText(&text), WriteJUnit(&xml, []*Result{r})); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"quick                         < 1 min 00 s  3 min 00 s  FAILED\n", ">= 80.0 %     100.0 %     ok\n",
		"FAILED: queue c jobs: the workload has no queue c\n", "run base: of 4 jobs 0 are unfinished, 1 were refused, 0 failed",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("got\n%swant %q", text.String(), want)
		}
	}
	for _, want := range []string{
		`<testsuites tests="4" failures="3">`, `<testcase name="quick" classname="test.yaml" file="test.yaml" line="5">`,
		`<failure message="max_wait &lt; 1m: wanted &lt; 1 min 00 s, found 3 min 00 s" type="assertion">`,
	} {
		if !strings.Contains(xml.String(), want) {
			t.Errorf("got\n%swant %q", xml.String(), want)
		}
	}
}

// TestRunNames: a run's name is letters, digits, _ and -, and begins with a letter.
func TestRunNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a": true, "Z": true, "fifo-2_x": true, strings.Repeat("a", maxRunName): true, strings.Repeat("a", maxRunName+1): false,
		"": false, "2a": false, "-a": false, "_": false, "a.b": false, "a@": false, "a[": false, "a`": false, "a{": false, "é": false,
	} {
		if got := isRunName(name); got != want {
			t.Errorf("a run may be called %q: %v, want %v", name, got, want)
		}
	}
}
