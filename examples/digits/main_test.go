package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/checkpoint"
)

// beProgram makes the test binary act as the program itself.
const beProgram = "DIGITS_TEST_BE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		os.Exit(start())
	}
	goleak.VerifyTestMain(m)
}

// program gives the program with these arguments, alone and outside Gangline.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "GANGLINE_") && name != "RANK" && name != "WORLD_SIZE" && name != "LOCAL_RANK" {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, beProgram+"=1")
	return cmd
}

// defaultModel is the model that the default flags give: the same on every machine, since no operation in it may round
// differently. A change that is meant to change the model changes this line and README.md.
const defaultModel = "10b2a4950f897e88"

func TestDefaultTrainingReachesItsAccuracy(t *testing.T) {
	t.Parallel()
	out, err := program(t).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	last := lastLine(out)
	var accuracy float64
	var hash string
	if _, err := fmt.Sscanf(last, "trained: step 1380/1380  test accuracy %f  model %s", &accuracy, &hash); err != nil {
		t.Fatalf("last line %q: %v", last, err)
	}
	if accuracy < 0.96 || hash != defaultModel {
		t.Errorf("accuracy %v, model %s: want at least 0.96, and %s", accuracy, hash, defaultModel)
	}
	if n := bytes.Count(out, []byte("\nepoch ")); n != 60 {
		t.Errorf("%d lines of progress, want one for each of 60 epochs", n)
	}
}

// TestSignalStopsWithACheckpoint stops the program as an agent would, by SIGUSR1 and SIGTERM, and starts it again.
func TestSignalStopsWithACheckpoint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"-epochs", "8", "-dir", dir, "-checkpoint-every", "1000"}
	cmd := program(t, append(args, "-step-delay", "10ms")...)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		fmt.Fprintln(&all, lines.Text())
		if strings.HasPrefix(lines.Text(), "epoch 1/8") {
			for _, sig := range []os.Signal{syscall.SIGUSR1, syscall.SIGTERM} {
				if err := cmd.Process.Signal(sig); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitAgain {
		t.Fatalf("stopped with %v, want exit status %d\n%s", err, exitAgain, all.String())
	}
	var step int
	if _, err := fmt.Sscanf(lastLine(all.Bytes()), "stopped after step %d/184", &step); err != nil || step < 23 {
		t.Fatalf("last line %q: stopped after step %d: %v", lastLine(all.Bytes()), step, err)
	}
	out, err := program(t, args...).CombinedOutput()
	if err != nil || !bytes.Contains(out, fmt.Appendf(nil, "resumed from step %d:", step)) {
		t.Fatalf("second start: %v, want one that resumes from step %d\n%s", err, step, out)
	}
	whole, err := program(t, "-epochs", "8").CombinedOutput()
	if err != nil || lastLine(whole) != lastLine(out) {
		t.Errorf("interrupted: %q\nin one go: %q (%v)", lastLine(out), lastLine(whole), err)
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for want, args := range map[int][]string{
		exitOK:     {"-help"},
		exitFailed: {"-epochs", "1", "-dir", "/dev/null/none"},
		exitUsage:  {"-batch", "0", "-lr", "-1"},
	} {
		out, err := program(t, args...).CombinedOutput()
		got := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%v: exit status %d, want %d\n%s", args, got, want, out)
		}
	}
	lost := fmt.Errorf("step 7: %w", &allreduce.RankLostError{Rank: 3, Cause: io.EOF})
	if got := exitStatus(lost, 0); got != exitAgain {
		t.Errorf("a lost peer gives exit status %d, want %d", got, exitAgain)
	}
	if got := exitStatus(lost, 3); got != exitFailed {
		t.Errorf("being lost oneself gives exit status %d, want %d", got, exitFailed)
	}
	if got := exitStatus(checkpoint.ErrAllBad, 0); got != exitFailed {
		t.Errorf("damaged checkpoints give exit status %d, want %d", got, exitFailed)
	}
}

func TestFlagsSayAllThatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := parseFlags([]string{"-epochs", "0", "-batch", "-3", "-hidden", "5000", "-slices", "0", "-lr", "NaN", "-momentum", "1", "-step-delay", "2h"}, io.Discard)
	for _, name := range []string{"epochs", "batch", "hidden", "slices", "lr", "momentum", "step-delay"} {
		if err == nil || !regexp.MustCompile(`-`+name+` is .* must be`).MatchString(err.Error()) {
			t.Errorf("error %v says nothing of -%s", err, name)
		}
	}
	if _, err := parseFlags([]string{"train"}, io.Discard); err == nil {
		t.Error("took an argument that is not a flag")
	}
	if _, err := parseFlags(nil, io.Discard); err != nil {
		t.Errorf("the default flags: %v", err)
	}
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
