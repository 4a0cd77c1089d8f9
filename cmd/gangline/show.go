package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) showCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show JOB",
		Short: "Show all about one job",
		Args:  exactArgs(1, "one job number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseJobID(args[0])
			if err != nil {
				return err
			}
			var job *schedulerv1.Job
			err = a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
				resp, err := c.GetJob(ctx, &schedulerv1.GetJobRequest{Id: id})
				job = resp.GetJob()
				return err
			})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(job)
			}
			return a.printJob(job)
		},
	}
}

func (a *app) printJob(j *schedulerv1.Job) error {
	spec := j.GetSpec()
	rows := [][]string{
		{"Job", fmt.Sprintf("%d  %s", j.GetId(), spec.GetName())},
		{"State", stateName(j.GetState())},
		{"Reason", j.GetReason()},
		{"User", j.GetUser()},
		{"Queue", fmt.Sprintf("%s, priority %d", spec.GetQueue(), spec.GetPriority())},
		{"GPUs", gpusText(spec)},
		{"Command", strings.Join(spec.GetCommand(), " ")},
		{"Submitted", timestamp(j.GetSubmittedUnixNs())},
		{"Started", timestamp(j.GetStartedUnixNs())},
		{"Finished", timestamp(j.GetFinishedUnixNs())},
		{"Epoch", fmt.Sprintf("%d (failures %d of %d retries, %d restarts not its fault)", j.GetEpoch(), j.GetFailures(), spec.GetRetries(), j.GetRequeues())},
	}
	if c := j.GetCheckpoint(); c != nil {
		rows = append(rows, []string{"Checkpoint", fmt.Sprintf("step %d, %s ago, %s", c.GetStep(), age(c.GetRecordedUnixNs()), c.GetPath())})
	}
	if p := progressText(j.GetProgress()); p != "" {
		rows = append(rows, []string{"Progress", p})
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	if err := a.printHistory(j); err != nil || len(j.GetWorkers()) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	rows = [][]string{{"RANK", "NODE", "STATE", "EXIT", "GPUS", "MESSAGE"}}
	for _, w := range j.GetWorkers() {
		rows = append(rows, []string{
			fmt.Sprint(w.GetRank()), w.GetNodeName(), workerStateName(w.GetState()), exitText(w),
			strings.Join(w.GetGpuUuids(), " "), clip(w.GetMessage(), 80),
		})
	}
	return table(a.out, rows)
}

// printHistory lists the epochs before the current one.
func (a *app) printHistory(j *schedulerv1.Job) error {
	rows := [][]string{{"EPOCH", "NODES", "STARTED", "RAN", "OUTCOME"}}
	for _, l := range j.GetHistory() {
		if l.GetEpoch() == j.GetEpoch() && final(j.GetState()) {
			continue // told above
		}
		ran := short(time.Duration(l.GetEndedUnixNs() - l.GetStartedUnixNs()))
		rows = append(rows, []string{fmt.Sprint(l.GetEpoch()), fmt.Sprint(len(l.GetNodeIds())), timestamp(l.GetStartedUnixNs()), ran, clip(l.GetOutcome(), 100)})
	}
	if len(rows) == 1 {
		return nil
	}
	fmt.Fprintln(a.out)
	return table(a.out, rows)
}

func gpusText(s *schedulerv1.JobSpec) string {
	out := fmt.Sprint(s.GetGpus())
	if s.GetGpusPerNode() > 0 {
		out += fmt.Sprintf(", %d on each node", s.GetGpusPerNode())
	}
	if len(s.GetGpuTypes()) > 0 {
		out += ", " + strings.Join(s.GetGpuTypes(), " or ")
	}
	return out
}

func workerStateName(s schedulerv1.WorkerState) string {
	name := strings.TrimPrefix(s.String(), "WORKER_STATE_")
	return name[:1] + strings.ToLower(name[1:])
}

func exitText(w *schedulerv1.Worker) string {
	switch {
	case w.GetState() != schedulerv1.WorkerState_WORKER_STATE_EXITED:
		return "-"
	case w.GetSignal() != 0:
		return fmt.Sprintf("signal %d", w.GetSignal())
	default:
		return fmt.Sprint(w.GetExitCode())
	}
}
