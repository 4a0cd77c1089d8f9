package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// longReplay starts a replay that cannot end: it writes its jobs to a pipe that nobody reads, yet.
func longReplay(t *testing.T, args ...string) (cmd *exec.Cmd, pipe string, out, errs *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	var jobs strings.Builder
	jobs.WriteString("job_id,submit_s,duration_s,gpus\n")
	for i := range 20000 {
		fmt.Fprintf(&jobs, "a-name-of-some-length-so-that-the-pipe-is-soon-full-%d,%d,1,1\n", i, i)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pipe = filepath.Join(dir, "jobs.fifo")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "gangline")
	if err := os.Symlink(self, binary); err != nil {
		t.Fatal(err)
	}
	args = append([]string{
		"sim", "run", "--jobs", write("jobs.csv", jobs.String()), "--nodes", write("nodes.csv", "node,gpus\nn,8\n"), "--jobs-csv", pipe,
	}, args...)
	cmd = exec.Command(binary, args...)
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, or the test has failed
	return cmd, pipe, out, errs
}

// TestInterruptedReplayReports: interrupted in the middle, a replay writes what it knows, marked as partial, and exits
// with 130.
func TestInterruptedReplayReports(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "r.html")
	cmd, pipe, out, errs := longReplay(t, "--json", "--html", page)
	f, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := bufio.NewScanner(f)
	for range 2 { // the heading and a job: it runs, and waits for this test to read on
		if !rows.Scan() {
			t.Fatalf("no row: %v; %s", rows.Err(), errs.String())
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	read := 1
	for rows.Scan() {
		read++
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Fatalf("ended with %v, want exit code %d; %s", err, exitInterrupted, errs.String())
	}
	var report struct {
		Partial    bool `json:"partial"`
		Finished   int  `json:"finished"`
		Unfinished int  `json:"unfinished"`
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if !report.Partial || report.Finished == 0 || report.Finished >= 20000 || read < report.Finished {
		t.Errorf("%+v, and %d rows of jobs", report, read)
	}
	if text, err := os.ReadFile(page); err != nil || !bytes.Contains(text, []byte("<b>Partial.</b>")) {
		t.Errorf("the page does not say that it is partial (%v)", err)
	}
	if !strings.Contains(errs.String(), "interrupted: the report is of the time until then") {
		t.Errorf("standard error: %s", errs.String())
	}
}

// TestSecondInterruptEnds: a replay that cannot write its files is ended by a second interrupt at once.
func TestSecondInterruptEnds(t *testing.T) {
	t.Parallel()
	cmd, pipe, _, _ := longReplay(t)
	f, err := os.Open(pipe) // and read no further
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	again := time.NewTicker(20 * time.Millisecond) // a person who has lost patience
	defer again.Stop()
	late := time.After(patience)
	for {
		_ = cmd.Process.Signal(os.Interrupt) // it may just have ended
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
				t.Fatalf("ended with %v, want SIGINT", err)
			}
			return
		case <-again.C:
		case <-late:
			t.Fatal("it goes on")
		}
	}
}
