package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/gangline/gangline/sim/compare"
	"github.com/gangline/gangline/sim/htmlreport"
	"github.com/gangline/gangline/sim/record"
	"github.com/gangline/gangline/sim/replay"
)

// simOut is where a replay's output goes beside the report, and whether it was interrupted.
type simOut struct {
	html             string
	jobsCSV, samples string
	every            time.Duration

	stopped atomic.Bool
	files   []outFile
}

// outFile is a file that grows while a replay runs.
type outFile struct {
	name  string
	file  *os.File
	buf   *bufio.Writer
	flush func() error
}

func (o *simOut) register(f *pflag.FlagSet) {
	o.every = 10 * time.Minute
	f.StringVar(&o.html, "html", "", "recorded run: also write a report with pictures to this file")
	f.StringVar(&o.jobsCSV, "jobs-csv", "", "recorded run: also write every job to this file as CSV, in order of their ends")
	f.StringVar(&o.samples, "samples-csv", "", "recorded run: also write queues and GPUs at equal distances of time to this file as CSV")
	f.Var(secondsFlag{&o.every}, "sample-every", "virtual time between two samples of --samples-csv")
}

// open creates the CSV files and returns what has to be told for them.
func (o *simOut) open() (*replay.Watch, error) {
	if o.every <= 0 {
		return nil, usage("--sample-every: there must be time between two samples")
	}
	var watches []*replay.Watch
	err := o.create(o.jobsCSV, func(w io.Writer) (func() error, error) {
		c, err := record.NewJobsCSV(w)
		watches = append(watches, c.Watch())
		return c.Flush, err
	})
	if err == nil {
		err = o.create(o.samples, func(w io.Writer) (func() error, error) {
			c, err := record.NewSamplesCSV(w, o.every)
			watches = append(watches, c.Watch())
			return c.Flush, err
		})
	}
	return replay.Watches(watches...), err
}

// create creates a file that grows, if it has a name. Begin writes its heading and returns what empties its buffers.
func (o *simOut) create(name string, begin func(io.Writer) (flush func() error, err error)) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	buf := bufio.NewWriterSize(f, 1<<16)
	flush, err := begin(buf)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	o.files = append(o.files, outFile{name, f, buf, flush})
	return nil
}

// close writes out the CSV files. Without one it does nothing.
func (o *simOut) close() error {
	var errs []error
	for _, f := range o.files {
		if err := errors.Join(f.flush(), f.buf.Flush(), f.file.Close()); err != nil {
			errs = append(errs, fmt.Errorf("write %s: %w", f.name, err))
		}
	}
	o.files = nil
	return errors.Join(errs...)
}

// page writes the HTML report, if one was asked for.
func (o *simOut) page(p *htmlreport.Page) error {
	if o.html == "" {
		return nil
	}
	f, err := os.Create(o.html)
	if err != nil {
		return err
	}
	buf := bufio.NewWriter(f)
	if err := errors.Join(htmlreport.Write(buf, p), buf.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", o.html, err)
	}
	return nil
}

// interruptible lets the first SIGINT or SIGTERM end a replay with what is known by then, and a second one end the
// process at once. The result is the watch that ends it, and a function to call in the end.
func (o *simOut) interruptible(ctx context.Context) (*replay.Watch, func()) {
	done := context.AfterFunc(ctx, func() {
		o.stopped.Store(true)
		signal.Reset(os.Interrupt, syscall.SIGTERM)
	})
	return &replay.Watch{Progress: func(*replay.Progress) bool { return !o.stopped.Load() }}, func() { done() }
}

// interrupted is the end of a command whose report is partial.
func interrupted() error {
	return &exitError{exitInterrupted, errors.New("interrupted: the report is of the time until then, and says so")}
}

// single makes a page's result of one run.
func single(name string, rep *replay.Report, rec *record.Record) *compare.Result {
	return &compare.Result{Partial: rep.Partial, Runs: []*compare.Entry{{Name: name, Report: rep, Record: rec}}}
}

// commandLine is what was typed, for a shell.
func (a *app) commandLine() string {
	words := []string{"gangline"}
	for _, w := range a.args {
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\$&|;<>()*?[]#~`!{}") {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}
