// Command results replays the published traces and writes docs/results.md: what
// Gangline does with each, beside every figure that others published or that was
// measured with their programs, and the command of each row.
//
//	make results TRACES=folder
//
// It runs the program that users have, once for each row, and reads its JSON: a
// row is what its command prints, but for those of the package model, which it
// runs itself. Equal traces and program give an equal page,
// on any machine; about a quarter of an hour on two cores.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
)

func main() {
	var w works
	flag.StringVar(&w.program, "program", filepath.Join("bin", "gangline"), "the gangline program that is measured")
	flag.StringVar(&w.traces, "traces", os.Getenv("GANGLINE_TRACES"), "folder of the published traces; default: $GANGLINE_TRACES")
	flag.StringVar(&w.cache, "cache", "", "folder that keeps each run's output, so that an interrupted measurement goes on; default: none")
	flag.IntVar(&w.atOnce, "at-once", runtime.NumCPU(), "runs at a time")
	out := flag.String("out", filepath.Join("docs", "results.md"), "page to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := write(ctx, &w, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/results:", err)
		os.Exit(1)
	}
}

// write measures all rows and replaces the page.
func write(ctx context.Context, w *works, out string) (err error) {
	if w.scratch, err = os.MkdirTemp("", "gangline-results"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(w.scratch)) }()
	if w.traces == "" {
		return errors.New("no folder of traces is named: set GANGLINE_TRACES or -traces; docs/results.md says which they are")
	}
	all := sections()
	if err := w.measure(ctx, all); err != nil {
		return err
	}
	return os.WriteFile(out, []byte(page(all)), 0o644) //nolint:gosec // G306: a page for everybody
}
