package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gangline/gangline/scheduler/yamlfile"
	"github.com/gangline/gangline/sim/assertion"
	"github.com/gangline/gangline/sim/replay"
)

func (a *app) simTestCmd() *cobra.Command {
	var junit string
	var out simOut
	cmd := &cobra.Command{
		Use:   "test FILE...",
		Short: "Assert what a policy must do for a workload: a test of the policy, for CI",
		Long: `Replay the workload that a YAML file names, as "gangline sim run" would, and check
what the file asserts. Exit code 1 if an assertion does not hold, 2 if a file is
wrong.

  run:                          # flags of "gangline sim run", without the dashes
    synthetic: {jobs: 2000, nodes: 16, load: 0.9}  # or jobs: and nodes: files
    policy: policy.yaml         # files are looked for beside this one
  runs:                         # more runs, by name, and what they change
    fifo: {order: fifo}
  assert:
    - p95_wait < 30m            # of all jobs; or p50_, p99.9_, avg_, max_
    - queue research p95_wait < 10m
    - longest_wait < 24h        # nobody starves, unfinished jobs included
    - preemptions <= 200
    - gpu_allocation >= 80%
    - name: better than FIFO
      that: avg_jct <= 0.8 * fifo.avg_jct

An assertion is "[queue NAME | user NAME | job NAME] [RUN.]METRIC OP VALUE", or
instead of VALUE another quantity, perhaps multiplied ("0.9 * fifo.p99_wait").
OP is one of < <= > >= == !=. Times have units. The metrics:

  of each job, with avg_, max_, p50_, p95_ and so on in front:
    wait (completion time that is not service), jct (completion time),
    first_wait (until the first start), fairness (finish-time fairness)
  of many: jobs, finished, unfinished, failed, refused, preemptions,
    preempted_jobs, longest_wait (longest time at a stretch without GPUs)
  of all or a queue: gpu_allocation, gpu_goodput; of all: makespan
  of one job: wait, jct, first_wait, fairness, longest_wait, preemptions,
    started and ended (since the trace's start), finished (1 or 0)`,
		Example: `  gangline sim test policy-test.yaml
  gangline sim test tests/*.yaml --junit report.xml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("which file of assertions? See %q", cmd.CommandPath()+" --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.simTest(cmd, &out, args, junit) },
	}
	cmd.Flags().StringVar(&junit, "junit", "", "also write the results as JUnit XML to this file")
	return cmd
}

// simTest replays what the files name, and writes what held.
func (a *app) simTest(cmd *cobra.Command, out *simOut, names []string, junit string) error {
	spareCollector()
	stop, done := out.interruptible(cmd.Context())
	defer done()
	var plans []*testPlan
	var errs []error
	for _, name := range names { // all files are read before one is played
		p, err := readTest(name)
		plans = append(plans, p)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return &exitError{exitUsage, err}
	}
	var results []*assertion.Result
	failed, all := 0, 0
	for _, p := range plans {
		ran, err := a.playTest(p, stop)
		if err != nil {
			return err
		}
		if ran == nil {
			return interrupted()
		}
		r := p.file.Judge(p.name, ran)
		if results = append(results, r); !a.json {
			if err := r.WriteText(a.out); err != nil {
				return err
			}
		}
		failed += r.Failed
		all += len(r.Verdicts)
	}
	if a.json {
		err := json.NewEncoder(a.out).Encode(struct {
			Assertions int                 `json:"assertions"`
			Failed     int                 `json:"failed"`
			Files      []*assertion.Result `json:"files"`
		}{all, failed, results})
		if err != nil {
			return err
		}
	}
	if err := writeJUnit(junit, results); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d assertions failed", failed, all)
	}
	a.statef("all %d assertions hold", all)
	return nil
}

func writeJUnit(name string, results []*assertion.Result) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	buf := bufio.NewWriter(f)
	if err := errors.Join(assertion.WriteJUnit(buf, results), buf.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// testPlan is a file of assertions, and the flags of its runs.
type testPlan struct {
	name  string
	file  *assertion.File
	flags []*simRunFlags // of each run
}

// readTest reads a file of assertions and finds all that is wrong with it.
func readTest(name string) (*testPlan, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	p := &testPlan{name: name}
	if p.file, err = assertion.Parse(data); err != nil {
		return nil, placed(name, err)
	}
	var errs []error
	for i := range p.file.Runs {
		fl, err := testFlags(filepath.Dir(name), &p.file.Runs[i])
		if err != nil && len(errs) == 0 { // what is wrong with the first run is wrong with all
			errs = append(errs, placed(name, err))
		}
		p.flags = append(p.flags, fl)
	}
	return p, errors.Join(errs...)
}

// placed puts a file's name before each of several problems: FILE:LINE:COLUMN, as compilers do.
func placed(name string, err error) error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range many.Unwrap() {
			out = append(out, placed(name, e))
		}
		return errors.Join(out...)
	}
	var at *yamlfile.Error
	if errors.As(err, &at) && at.Line > 0 {
		return fmt.Errorf("%s:%d:%d: %s", name, at.Line, at.Column, at.Text)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// testFlags makes the flags of a run. Files are looked for in a folder.
func testFlags(dir string, run *assertion.Run) (*simRunFlags, error) {
	fl := newSimRunFlags()
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fl.register(set)
	allowed := append([]string{"jobs", "nodes", "synthetic", "faults", "seed"}, recorded...)
	allowed = slices.DeleteFunc(allowed, func(name string) bool { return set.Lookup(name) == nil }) // those of pictures and tables
	slices.Sort(allowed)
	var errs []error
	for i := range run.Settings {
		s := &run.Settings[i]
		if !slices.Contains(allowed, s.Name) {
			errs = append(errs, s.Error(fmt.Errorf("is not a flag of \"gangline sim run\" that a test may set%s: there are %s",
				yamlfile.Suggest(s.Name, allowed), strings.Join(allowed, ", "))))
			continue
		}
		if len(s.Parts) > 0 && s.Name != "synthetic" {
			errs = append(errs, s.Error(errors.New("expected one value, not a map")))
			continue
		}
		f := set.Lookup(s.Name)
		value := testSetting(dir, s)
		if list, ok := f.Value.(pflag.SliceValue); ok { // a later run's takes the place of the base run's
			_ = list.Replace(nil)
		}
		if err := set.Set(s.Name, value); err != nil {
			errs = append(errs, s.Error(err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	replays, err := fl.choose(set)
	switch {
	case err != nil:
		return nil, fmt.Errorf("run %s: %w", run.Name, err)
	case !replays:
		return nil, fmt.Errorf("run %s: jobs and nodes must be files, or synthetic say what to make up", run.Name)
	}
	if _, err := fl.config(); err != nil {
		return nil, fmt.Errorf("run %s: %w", run.Name, err)
	}
	return fl, nil
}

// testSetting is a setting as the flag takes it.
func testSetting(dir string, s *assertion.Setting) string {
	beside := func(name string) string {
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	switch s.Name {
	case "jobs", "nodes", "policy", "estimates", "pai-jobs":
		if s.Name == "estimates" && s.Value == timeLimits {
			return s.Value
		}
		return beside(s.Value)
	case "faults":
		if _, preset := replay.Preset(s.Value); preset || s.Value == "true" || s.Value == "false" {
			return s.Value
		}
		return beside(s.Value)
	case "synthetic":
		parts := strings.Split(s.Value, ",")
		if s.Parts != nil {
			parts = nil
			for i := range s.Parts {
				parts = append(parts, s.Parts[i].Name+"="+s.Parts[i].Value)
			}
		}
		for i, part := range parts {
			if file, ok := strings.CutPrefix(part, "like="); ok {
				parts[i] = "like=" + beside(file)
			}
		}
		return strings.Join(parts, ",")
	}
	return s.Value
}

// playTest replays all runs of a file. It returns nil if it was interrupted.
func (a *app) playTest(p *testPlan, stop *replay.Watch) ([]*assertion.Ran, error) {
	var out []*assertion.Ran
	for i, run := range p.file.Runs {
		fl := p.flags[i]
		cfg, err := fl.config()
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		bar, end := a.progress(run.Name, fl.jobs, &fl.trace)
		tr, err := fl.load()
		if err != nil {
			end()
			return nil, &exitError{exitUsage, fmt.Errorf("%s: run %s: %w", p.name, run.Name, err)}
		}
		c := p.file.Collector(run.Name)
		cfg.Watch = replay.Watches(stop, c.Watch(), bar)
		rep, err := replay.Run(cfg, tr)
		end()
		if err != nil {
			return nil, fmt.Errorf("%s: run %s: %w", p.name, run.Name, err)
		}
		if rep.Partial {
			return nil, nil
		}
		out = append(out, &assertion.Ran{Name: run.Name, Report: rep, Collector: c})
	}
	return out, nil
}
