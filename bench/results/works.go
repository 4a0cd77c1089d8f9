package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/bench/results/model"
	"github.com/gangline/gangline/sim/trace"
)

// works runs the program that is measured.
type works struct {
	program, traces string
	cache           string // empty: none
	scratch         string // folder of copies of traces and of policies
	atOnce          int
}

// measure runs every row that is ours, and fills in what came of it.
func (w *works) measure(ctx context.Context, all []section) error {
	for name, text := range policies { // any order: files of their own
		if err := os.WriteFile(filepath.Join(w.scratch, name), []byte(text+"\n"), 0o600); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(w.atOnce, 1))
	for i := range all {
		for k := range all[i].rows {
			r := &all[i].rows[k]
			if len(r.args) == 0 && r.model == nil {
				continue
			}
			g.Go(func() error {
				if r.model != nil {
					return w.runModel(r)
				}
				if err := w.run(ctx, r); err != nil {
					return fmt.Errorf("gangline %s: %w", strings.Join(r.args, " "), err)
				}
				fmt.Fprintf(os.Stderr, "done: %s\n", r.command())
				return nil
			})
		}
	}
	return g.Wait()
}

// run runs one row's command and reads its JSON.
func (w *works) run(ctx context.Context, r *row) error {
	args, err := w.resolve(r)
	if err != nil {
		return err
	}
	kept := ""
	if w.cache != "" {
		kept = filepath.Join(w.cache, fmt.Sprintf("%x.json", sha256.Sum256([]byte(r.command()+fmt.Sprint(r.copy)))))
		if data, err := os.ReadFile(kept); err == nil {
			return json.Unmarshal(data, &r.got)
		}
	}
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, w.program, args...) //nolint:gosec // G204: it is what is measured
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	if err := json.Unmarshal(out.Bytes(), &r.got); err != nil {
		return fmt.Errorf("its output: %w", err)
	}
	if r.got.Unfinished+r.got.Refused > 0 {
		return fmt.Errorf("%d jobs are unfinished and %d refused: all should end", r.got.Unfinished, r.got.Refused)
	}
	if kept != "" {
		return os.WriteFile(kept, out.Bytes(), 0o600)
	}
	return nil
}

// runModel runs a row of the model.
func (w *works) runModel(r *row) error {
	src, err := trace.OpenJobs(filepath.Join(w.traces, r.model.jobs), trace.Options{})
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // only read
	var jobs []trace.Job
	for {
		var j trace.Job
		err := src.Next(&j)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		jobs = append(jobs, j)
	}
	got := model.Run(model.Config{Nodes: 8, PerNode: 8, Restart: 30, Tick: 600, Index: r.model.index}, jobs)
	r.got = figures{
		AvgJCT: got.Avg, P50JCT: got.P50, P99JCT: got.P99, AvgWait: got.Wait, Goodput: none, Fairness: none, Preemptions: got.Stops,
	}
	fmt.Fprintf(os.Stderr, "done: %s on %s\n", r.name, r.model.jobs)
	return nil
}

// resolve turns a row's command into arguments: files are those of the traces,
// policies are written out, copies of a trace are made.
func (w *works) resolve(r *row) ([]string, error) {
	args := []string{"--json"}
	for i, a := range r.args {
		switch {
		case strings.HasSuffix(a, ".csv.gz") && r.copy > 0 && r.args[i-1] == "--jobs":
			copied, err := w.thinned(a, r.copy)
			if err != nil {
				return nil, err
			}
			a = copied
		case strings.HasSuffix(a, ".csv.gz"), strings.HasSuffix(a, ".csv"):
			a = filepath.Join(w.traces, a)
		case strings.HasSuffix(a, ".yaml"):
			a = filepath.Join(w.scratch, a)
		}
		args = append(args, a)
	}
	return append(args, "--wall=false"), nil
}
