package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) jobsCmd() *cobra.Command {
	req := &schedulerv1.ListJobsRequest{}
	var states []string
	var mine, all bool
	var limit int
	cmd := &cobra.Command{
		Use: "jobs", Aliases: []string{"queue", "ps"},
		Short: "List jobs, newest first",
		Long: `List jobs, newest first: the newest 50, or as --limit and --all say. --state
pending,starting,running shows what has not ended. With --json, prints one JSON object with the jobs and the index of
the state they were read from.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range states {
				st, err := parseState(s)
				if err != nil {
					return err
				}
				req.States = append(req.States, st)
			}
			if mine {
				req.User = userName()
			}
			if all {
				limit = 0
			}
			return a.listJobs(cmd.Context(), req, limit)
		},
	}
	f := cmd.Flags()
	f.StringSliceVarP(&states, "state", "s", nil, "only jobs in these states, such as pending,running")
	f.StringVarP(&req.Queue, "queue", "q", "", "only jobs of this queue or below it")
	f.StringVarP(&req.User, "user", "u", "", "only jobs of this user")
	f.StringVar(&req.NamePrefix, "name-prefix", "", "only jobs whose name begins so")
	f.BoolVar(&mine, "me", false, "only my jobs")
	f.IntVarP(&limit, "limit", "n", 50, "at most this many")
	f.BoolVarP(&all, "all", "a", false, "all that are remembered")
	f.BoolVar(&req.Stale, "stale", false, "take what the server asked has, without asking the leader")
	return cmd
}

func (a *app) listJobs(ctx context.Context, req *schedulerv1.ListJobsRequest, limit int) error {
	all := &schedulerv1.ListJobsResponse{}
	err := a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
		for {
			req.PageSize = 1000
			if limit > 0 {
				req.PageSize = int32(min(1000, limit-len(all.GetJobs())))
			}
			page, err := c.ListJobs(ctx, req)
			if err != nil {
				return err
			}
			all.Index = page.GetIndex()
			all.Jobs = append(all.Jobs, page.GetJobs()...)
			req.PageToken = page.GetNextPageToken()
			if req.GetPageToken() == "" || (limit > 0 && len(all.GetJobs()) >= limit) {
				all.NextPageToken = req.GetPageToken()
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(all)
	}
	rows := [][]string{{"JOB", "NAME", "USER", "QUEUE", "GPUS", "STATE", "AGE", "REASON"}}
	for _, j := range all.GetJobs() {
		rows = append(rows, []string{
			strconv.FormatUint(j.GetId(), 10), clip(j.GetSpec().GetName(), 24), clip(j.GetUser(), 12), clip(j.GetSpec().GetQueue(), 20),
			strconv.Itoa(int(j.GetSpec().GetGpus())), stateName(j.GetState()), age(j.GetSubmittedUnixNs()), jobNote(j),
		})
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	if all.GetNextPageToken() != "" {
		a.statef("there are more: --limit N or --all shows them")
	}
	return nil
}

// jobNote is the most telling short text about a job.
func jobNote(j *schedulerv1.Job) string {
	if p := j.GetProgress(); p != nil && j.GetState() != schedulerv1.JobState_JOB_STATE_PENDING {
		return clip(progressText(p), 90)
	}
	return clip(j.GetReason(), 90)
}

func clip(s string, n int) string {
	s = strings.ReplaceAll(s, "\n", " ")
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

func (a *app) cancelCmd() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "cancel JOB...",
		Short: "Stop jobs for good",
		Long:  "Stop jobs for good. Running workers get the warning signal, then SIGTERM, then SIGKILL, with the job's own times between.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("%q needs one or more job numbers", cmd.CommandPath())
			}
			for _, arg := range args { // all are checked before the first is stopped
				if _, err := parseJobID(arg); err != nil {
					return err
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
				for _, arg := range args {
					id, err := parseJobID(arg)
					if err != nil {
						return err
					}
					resp, err := c.CancelJob(ctx, &schedulerv1.CancelJobRequest{Id: id, Reason: reason, User: userName()})
					if err != nil {
						return err
					}
					if a.json {
						err = a.printJSON(resp.GetJob())
					} else {
						_, err = fmt.Fprintf(a.out, "job %d is %s: %s\n", id, stateName(resp.GetJob().GetState()), resp.GetJob().GetReason())
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for others to read")
	return cmd
}
