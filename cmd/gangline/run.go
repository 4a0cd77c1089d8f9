package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) runCmd() *cobra.Command {
	var flags specFlags
	cmd := &cobra.Command{
		Use:   "run [FLAGS] (FILE | - | -- COMMAND [ARG...])",
		Short: "Submit a job, print its output, and exit with its code",
		Long: `Submit a job, print what its workers print, and exit with its exit code.
Interrupt (Ctrl-C) cancels the job and waits for it to stop; a second
interrupt leaves it stopping.`,
		Example: `  gangline run --gpus 2 -- sh -c 'echo rank $RANK of $WORLD_SIZE on $CUDA_VISIBLE_DEVICES'`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := flags.spec(cmd, args, a.in)
			if err != nil {
				return err
			}
			if spec.GetArray() != nil {
				return usage("array: \"run\" is for one job: give an array to \"gangline submit\"")
			}
			job, err := a.submit(cmd.Context(), spec, "")
			if err != nil {
				return err
			}
			a.statef("job %d submitted", job.GetId())
			err = a.attach(cmd.Context(), job.GetId(), true)
			if cmd.Context().Err() == nil {
				return err
			}
			return a.cancelAndWait(job.GetId())
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

// cancelAndWait follows an interrupt: the job is stopped, and waited for
// until a second interrupt.
func (a *app) cancelAndWait(id uint64) error {
	a.statef("interrupted: cancels job %d and waits for it to stop (interrupt again to leave)", id)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
		_, err := c.CancelJob(ctx, &schedulerv1.CancelJobRequest{Id: id, Reason: "interrupted", User: userName()})
		return err
	})
	if err != nil {
		return err
	}
	if err := a.attach(ctx, id, false); err != nil {
		var exit *exitError
		if errors.As(err, &exit) {
			return &exitError{code: exitInterrupted}
		}
		return err
	}
	return &exitError{code: exitInterrupted}
}

// logDrain is how long output may still arrive after a job has ended.
const logDrain = 15 * time.Second

// attach waits until the job is final, tells its state changes on standard
// error, and prints its output if asked. It returns the job's exit code as an
// exitError, or nil for success.
func (a *app) attach(ctx context.Context, id uint64, output bool) error {
	c, done, err := a.dial()
	if err != nil {
		return err
	}
	defer done()
	var job *schedulerv1.Job
	logCtx, cancelLogs := context.WithCancel(ctx)
	defer cancelLogs()
	var g errgroup.Group
	if output {
		g.Go(func() error {
			return a.streamLogs(logCtx, c, &schedulerv1.StreamLogsRequest{JobId: id, Follow: true}, false)
		})
	}
	job, err = a.watchUntilFinal(ctx, c, id)
	if err != nil {
		cancelLogs()
		_ = g.Wait() // the watch's error says more
		return err
	}
	timer := time.AfterFunc(logDrain, cancelLogs)
	defer timer.Stop()
	if err := g.Wait(); err != nil && ctx.Err() == nil && logCtx.Err() == nil {
		a.statef("output is incomplete: %v", err)
	}
	return a.jobExit(job)
}

// watchUntilFinal follows one job, across servers that come and go.
func (a *app) watchUntilFinal(ctx context.Context, c schedulerv1.SchedulerServiceClient, id uint64) (*schedulerv1.Job, error) {
	var index uint64
	var last schedulerv1.JobState
	failures := 0
	for {
		before := index
		job, err := a.watchOnce(ctx, c, id, &index, &last)
		if index > before {
			failures = 0
		}
		switch {
		case err == nil:
			return job, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		failures++
		code, words := exitCode(err)
		if code != exitUnavailable && code != exitFailure || failures > 60 {
			return nil, err
		}
		if failures == 3 { // one or two are a change of leaders
			a.statef("no news of job %d for now, the job itself goes on: %s", id, words)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (a *app) watchOnce(ctx context.Context, c schedulerv1.SchedulerServiceClient, id uint64, index *uint64, last *schedulerv1.JobState) (*schedulerv1.Job, error) {
	if *index == 0 {
		// A job that does not exist would be watched for ever.
		getCtx, cancel := a.callContext(ctx)
		_, err := c.GetJob(getCtx, &schedulerv1.GetJobRequest{Id: id})
		cancel()
		if err != nil {
			return nil, err
		}
	}
	stream, err := c.WatchJobs(ctx, &schedulerv1.WatchJobsRequest{FromIndex: *index, JobIds: []uint64{id}})
	if err != nil {
		return nil, err
	}
	for {
		ev, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		*index = max(*index, ev.GetIndex())
		job := ev.GetJob()
		if job == nil {
			continue
		}
		if job.GetState() != *last {
			*last = job.GetState()
			a.statef("job %d is %s: %s", id, stateName(job.GetState()), job.GetReason())
		}
		if final(job.GetState()) {
			return job, nil
		}
	}
}

// jobExit turns a final job into the process's exit code.
func (a *app) jobExit(job *schedulerv1.Job) error {
	if a.json {
		if err := a.printJSON(job); err != nil {
			return err
		}
	}
	switch job.GetState() {
	case schedulerv1.JobState_JOB_STATE_SUCCEEDED:
		return nil
	case schedulerv1.JobState_JOB_STATE_CANCELLED:
		return &exitError{code: exitInterrupted}
	default:
		return &exitError{failedCode(job), fmt.Errorf("job %d failed: %s", job.GetId(), job.GetReason())}
	}
}

// failedCode is the exit code of the worker to blame: the first that failed of
// itself. Those that were stopped because of it have codes of their own.
// Without such a worker it is 1.
func failedCode(job *schedulerv1.Job) int {
	for _, w := range job.GetWorkers() {
		switch {
		case !w.GetBlamed():
		case w.GetSignal() != 0:
			return 128 + int(w.GetSignal())
		case w.GetExitCode() != 0:
			return int(w.GetExitCode())
		}
	}
	return exitFailure
}
