package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) queuesCmd() *cobra.Command {
	req := &schedulerv1.ListQueuesRequest{}
	cmd := &cobra.Command{
		Use: "queues [QUEUE]", Short: "List queues: what they hold, may hold and wait for",
		Long: `List queues as a tree: GPUs held, of them borrowed from other queues' quota, quota
and limit, jobs that run and wait. What a queue holds, the queues above it hold
too. A "*" marks a queue that the policy does not name; "closed" takes no new
jobs. --users N adds the users who used most, in GPU-hours that fade with the
policy's half-life: what counts in fair share.`,
		Args: upToOne("queue"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Queue = strings.Join(args, "")
			resp, err := a.listQueues(cmd.Context(), req)
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(resp)
			default:
				return a.printQueues(resp.GetQueues())
			}
		},
	}
	cmd.Flags().Int32Var(&req.Users, "users", 0, "also this many users of each queue")
	cmd.Flags().Int32Var(&req.Reasons, "reasons", 0, `with --json, also this many reasons: see "gangline reasons"`)
	cmd.Flags().BoolVar(&req.Stale, "stale", false, "take what the server asked has, without asking the leader")
	return cmd
}

func (a *app) reasonsCmd() *cobra.Command {
	req := &schedulerv1.ListQueuesRequest{Reasons: 20}
	cmd := &cobra.Command{
		Use: "reasons [QUEUE]", Short: "Say why jobs wait, one line for each reason",
		Long: `Say why jobs wait, the reason of most jobs first. Jobs that differ only in the
GPUs that they ask for have one reason. "gangline show JOB" has the reason of one
job.`,
		Args: upToOne("queue"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Queue = strings.Join(args, "")
			resp, err := a.listQueues(cmd.Context(), req)
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(&schedulerv1.ListQueuesResponse{Reasons: resp.GetReasons(), OtherReasons: resp.GetOtherReasons(), Index: resp.GetIndex()})
			}
			rows := [][]string{{"JOBS", "GPUS", "OLDEST", "REASON"}}
			row := func(r *schedulerv1.PendingReason, text string) {
				rows = append(rows, []string{fmt.Sprint(r.GetJobs()), gpuCount(r.GetGpus()), fmt.Sprint(r.GetFirstJob()), text})
			}
			for _, r := range resp.GetReasons() {
				row(r, clip(r.GetReason(), 160))
			}
			if r := resp.GetOtherReasons(); r != nil {
				row(r, "other reasons: --limit N shows more")
			}
			return table(a.out, rows)
		},
	}
	cmd.Flags().Int32VarP(&req.Reasons, "limit", "n", 20, "at most this many")
	cmd.Flags().BoolVar(&req.Stale, "stale", false, "take what the server asked has, without asking the leader")
	return cmd
}

func upToOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage("%q takes at most one %s, was given %q", cmd.CommandPath(), what, args)
		}
		return nil
	}
}

func (a *app) listQueues(ctx context.Context, req *schedulerv1.ListQueuesRequest) (resp *schedulerv1.ListQueuesResponse, err error) {
	err = a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
		resp, err = c.ListQueues(ctx, req)
		return err
	})
	return resp, err
}

func (a *app) printQueues(queues []*schedulerv1.Queue) error {
	rows := [][]string{{"QUEUE", "HELD", "BORROWED", "QUOTA", "", "LIMIT", "WEIGHT", "RUN", "WAIT", "NOTE"}}
	above := 0 // how deep the first one is: a part of the tree begins at its left edge
	if len(queues) > 0 {
		above = strings.Count(queues[0].GetPath(), "/")
	}
	for i, q := range queues {
		depth := strings.Count(q.GetPath(), "/") - above
		name := strings.Repeat("  ", depth) + q.GetPath()[strings.LastIndexByte(q.GetPath(), '/')+1:]
		if i == 0 {
			name = q.GetPath()
		}
		wait := fmt.Sprint(q.GetPendingJobs())
		if q.GetPendingJobs() > 0 {
			wait += fmt.Sprintf(" (%s GPUs)", gpuCount(q.GetPendingGpus()))
		}
		rows = append(rows, []string{
			name + mark(!q.GetInPolicy(), " *"), gpuCounts(q.GetHeld(), "0"), gpuCount(q.GetBorrowedGpus()),
			gpuCounts(q.GetQuota(), "-"), usageBar(q), gpuCounts(q.GetLimit(), "-"), strconv.FormatFloat(q.GetWeight(), 'f', -1, 64),
			fmt.Sprint(q.GetHoldingJobs()), wait, queueNote(q),
		})
		for _, u := range q.GetUsers() {
			rows = append(rows, []string{
				strings.Repeat("  ", depth) + "  @" + u.GetUser(), gpuCount(u.GetHeldGpus()), "", "", "", "", "", "", "",
				fmt.Sprintf("%.1f GPU-hours", u.GetUsedGpuHours()),
			})
		}
	}
	return table(a.out, rows)
}

func queueNote(q *schedulerv1.Queue) string {
	var notes []string
	if q.GetClosed() {
		notes = append(notes, "closed")
	}
	if q.GetUserLimit() > 0 {
		notes = append(notes, fmt.Sprintf("%d GPUs for one user", q.GetUserLimit()))
	}
	return strings.Join(notes, "; ")
}

// usageBar draws how much of its quota a queue uses: ten places, and "+" for
// what is borrowed. Without a quota it is empty.
func usageBar(q *schedulerv1.Queue) string {
	quota := 0.0
	for _, c := range q.GetQuota() {
		quota += c.GetGpus()
	}
	if quota == 0 {
		return ""
	}
	used := 0.0
	for _, c := range q.GetHeld() {
		used += c.GetGpus()
	}
	used = max(used-q.GetBorrowedGpus(), 0)
	return partBar(used/quota) + mark(q.GetBorrowedGpus() > 0, "+")
}

// partBar shows a part of something in ten places.
func partBar(part float64) string {
	const places = 10
	full := min(int(math.Ceil(places*part)), places)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", places-full) + "]"
}

func mark(on bool, text string) string {
	if on {
		return text
	}
	return ""
}

// gpuCounts lists numbers of GPUs: "64 h100, 8 a100".
func gpuCounts(counts []*schedulerv1.GPUCount, none string) string {
	var parts []string
	for _, c := range counts {
		parts = append(parts, strings.TrimSpace(gpuCount(c.GetGpus())+" "+c.GetType()))
	}
	if len(parts) == 0 {
		return none
	}
	return strings.Join(parts, ", ")
}

// gpuCount writes a number of GPUs with what decimals it has, at most two.
func gpuCount(n float64) string {
	return strconv.FormatFloat(math.Round(n*100)/100, 'f', -1, 64)
}
