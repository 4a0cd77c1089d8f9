package main

import (
	"context"
	_ "embed" // for the data
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

//go:embed data/digits.csv.gz
var zippedDigits []byte

// Exit statuses.
const (
	exitOK     = 0 // trained
	exitFailed = 1
	exitUsage  = 2
	// exitAgain is EX_TEMPFAIL of sysexits.h, "try again": another rank was
	// lost, or it was asked to stop and has committed a checkpoint. A training
	// that is not done must not end with 0: whoever asked may have been a stray
	// signal, and the job would count as succeeded.
	exitAgain = 75
)

// errStopped ends a training that was asked to stop before it was done.
var errStopped = errors.New("asked to stop before the training was done")

func main() { os.Exit(start()) }

// start is main with a result.
func start() int {
	cfg, err := parseFlags(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(os.Stderr, "digits:", err)
		return exitUsage
	}
	env, err := workerclient.FromEnv()
	if err != nil {
		fmt.Fprintln(os.Stderr, "digits:", err)
		return exitUsage
	}
	if env.CheckpointDir != "" && cfg.dir != "" {
		fmt.Fprintf(os.Stderr, "digits: -dir is for runs outside Gangline: this job's checkpoints belong into %s\n", env.CheckpointDir)
		return exitUsage
	}
	stop := newStopper()
	defer watchSignals(stop)()
	err = run(context.Background(), env, cfg, stop, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, errStopped) { // rank 0 has told of a stop
		fmt.Fprintf(os.Stderr, "digits: rank %d of %d: %v\n", env.Rank, env.WorldSize, err)
	}
	return exitStatus(err, env.Rank)
}

// exitStatus is the exit status for what run returned.
func exitStatus(err error, rank int) int {
	if err == nil {
		return exitOK
	}
	if _, ok := lostPeer(err, rank); ok || errors.Is(err, errStopped) {
		return exitAgain
	}
	return exitFailed
}

// lostPeer tells whether an error is the loss of another rank.
func lostPeer(err error, rank int) (*allreduce.RankLostError, bool) {
	var lost *allreduce.RankLostError
	if errors.As(err, &lost) && lost.Rank != rank {
		return lost, true
	}
	return nil, false
}

// watchSignals turns signals into a wish to stop, until the returned function is called. The warning and SIGTERM may
// both come while the checkpoint is written; only a second interrupt from the keyboard ends the program at once.
func watchSignals(stop *stopper) func() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGUSR1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range signals {
			stop.ask("signal: " + sig.String())
			signal.Reset(os.Interrupt)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}
