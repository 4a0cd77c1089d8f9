package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
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
		{"Job", fmt.Sprintf("%d  %s", j.GetId(), jobName(j))},
		{"State", stateName(j.GetState())},
		{"Reason", j.GetReason()},
		{"User", j.GetUser()},
		{"Queue", fmt.Sprintf("%s, priority %d", spec.GetQueue(), spec.GetPriority())},
		{"GPUs", gpusText(spec) + mark(j.GetHeldGpus() > 0 && spec.GetMinGpus() > 0, fmt.Sprintf("; holds %d", j.GetHeldGpus()))},
		{"Command", strings.Join(spec.GetCommand(), " ")},
		{"Submitted", timestamp(j.GetSubmittedUnixNs())},
		{"Started", timestamp(j.GetStartedUnixNs())},
		{"Finished", timestamp(j.GetFinishedUnixNs())},
		{"Epoch", fmt.Sprintf("%d (failures %d of %d retries, %d restarts not its fault)", j.GetEpoch(), j.GetFailures(), spec.GetRetries(), j.GetRequeues())},
	}
	if f := j.GetFormation(); f > 1 {
		rows = append(rows, []string{"Formation", fmt.Sprintf("%d: its workers have changed %d times in this epoch", f, f-1)})
	}
	rows = append(rows, placementRows(j)...)
	rows = append(rows, savingRows(j)...)
	if p := progressText(j.GetProgress()); p != "" {
		rows = append(rows, []string{"Progress", p})
	}
	if r := j.GetRing(); r != nil {
		rows = append(rows, []string{"Ring", ringText(r)})
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	if err := a.printHistory(j); err != nil || len(j.GetWorkers()) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	rows = [][]string{{"RANK", "NODE", "STATE", "EXIT", "IN CALLS", "GPUS", "MESSAGE"}}
	for _, w := range j.GetWorkers() {
		rows = append(rows, []string{
			fmt.Sprint(w.GetRank()), w.GetNodeName(), workerStateName(w.GetState()), exitText(w), busyText(j.GetRing(), w.GetRank()),
			strings.Join(w.GetGpuUuids(), " "), clip(w.GetMessage(), 80),
		})
	}
	return table(a.out, rows)
}

// ringText says how the ranks' collective calls go, and who holds the others up.
func ringText(r *schedulerv1.Ring) string {
	text := fmt.Sprintf("%.3g calls/s, %s/s a rank", r.GetCallsPerSecond(), checkpoint.BytesText(int64(r.GetBytesPerSecond())))
	late := r.GetStraggler()
	if late == nil {
		return text + "; no rank holds the others up"
	}
	return text + fmt.Sprintf("; rank %d on %s comes last: others wait %s for it in each call, %.0f %% of the time",
		late.GetRank(), late.GetNode(), fine(time.Duration(late.GetLagSeconds()*float64(time.Second))), 100*late.GetLagRatio())
}

// busyText says which part of the time a rank spends in collective calls, waiting and moving data.
func busyText(r *schedulerv1.Ring, rank int32) string {
	place := slices.Index(r.GetMembers(), rank)
	if place < 0 || place >= len(r.GetBusyRatio()) {
		return ""
	}
	return fmt.Sprintf("%.0f %%", 100*r.GetBusyRatio()[place])
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

// placementRows tell of the array, the wishes for where it runs, what is kept
// for it and what was taken from it; only what there is.
func placementRows(j *schedulerv1.Job) [][]string {
	var rows [][]string
	row := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	s := j.GetSpec()
	if j.GetArray() != 0 {
		row("Array", "index %d of array %d (%s)", j.GetArrayIndex(), j.GetArray(), arrayText(s.GetArray()))
	}
	if len(s.GetAfter()) > 0 {
		row("After", "%s", afterText(s.GetAfter())+mark(len(j.GetUnmet()) > 0, "; still to come: "+afterText(j.GetUnmet())))
	}
	if t := s.GetTopology(); t != nil {
		row("Topology", "one %s, %s", t.GetLevel(), map[bool]string{true: "required", false: "preferred"}[t.GetRequired()])
	}
	if sel := s.GetNodeSelector(); len(sel) > 0 {
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(sel)) {
			parts = append(parts, label(k, sel[k]))
		}
		row("Nodes with", "%s", strings.Join(parts, ", "))
	}
	if len(s.GetTolerations()) > 0 {
		row("Tolerates", "%s", strings.Join(s.GetTolerations(), ", "))
	}
	if used := j.GetAttainedGpuSeconds(); used > 0 {
		row("Has had", "%s", gpuTime(used))
	}
	if j.GetPreemptions() > 0 {
		row("Preempted", "%s, last at %s", plural(int(j.GetPreemptions()), "time"), timestamp(j.GetPreemptedUnixNs()))
	}
	if k := j.GetKept(); k != nil {
		row("Kept for it", "free GPUs of %s, to start at about %s", nodeList(k.GetNodes()), timestamp(k.GetStartUnixNs()))
	}
	if len(j.GetAvoidedNodes()) > 0 {
		row("Avoids", "%s: it failed there, or lost them", nodeList(j.GetAvoidedNodes()))
	}
	return rows
}

// nodeList names the first few nodes.
func nodeList(names []string) string {
	const few = 8
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more nodes", strings.Join(names[:few], ", "), len(names)-few)
}

// arrayText writes an array as a job file does.
func arrayText(a *schedulerv1.ArraySpec) string {
	out := fmt.Sprintf("%d-%d", a.GetFirst(), a.GetLast())
	if a.GetStep() > 1 {
		out += fmt.Sprintf(":%d", a.GetStep())
	}
	if a.GetParallel() > 0 {
		out += fmt.Sprintf("%%%d", a.GetParallel())
	}
	return out
}

// afterText writes dependencies as a job file does.
func afterText(after []*schedulerv1.Dependency) string {
	var out []string
	for _, d := range after {
		word := map[schedulerv1.Condition]string{
			schedulerv1.Condition_CONDITION_OK: "ok", schedulerv1.Condition_CONDITION_NOT_OK: "notok", schedulerv1.Condition_CONDITION_ANY: "any",
		}[d.GetCondition()]
		if d.GetEach() {
			word = "each"
		}
		text := fmt.Sprintf("%s:%d", word, d.GetJob())
		if d.Index != nil {
			text += fmt.Sprintf("_%d", d.GetIndex())
		}
		out = append(out, text)
	}
	return strings.Join(out, ",")
}

// sizeText is the size of a gang in short: 8, 8..32 or 0.5.
func sizeText(s *schedulerv1.JobSpec) string {
	switch {
	case s.GetGpuMilli() > 0:
		return fmt.Sprintf("%g", float64(s.GetGpuMilli())/1000)
	case s.GetMinGpus() > 0 && s.GetMinGpus() < s.GetGpus():
		return fmt.Sprintf("%d..%d", s.GetMinGpus(), s.GetGpus())
	default:
		return fmt.Sprint(s.GetGpus())
	}
}

func gpusText(s *schedulerv1.JobSpec) string {
	out := sizeText(s)
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
