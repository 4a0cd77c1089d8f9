package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) cancelCmd() *cobra.Command {
	var reason string
	var array uint64
	cmd := &cobra.Command{
		Use:   "cancel (JOB... | --array JOB)",
		Short: "Stop jobs for good",
		Long: `Stop jobs for good. Running workers get the warning signal, then SIGTERM, then
SIGKILL, with the job's own times between. --array stops all members of an array
that have not ended.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) == (array == 0) {
				return usage("%q needs one or more job numbers, or --array with that of an array's first job", cmd.CommandPath())
			}
			_, err := jobIDs(args) // all are checked before the first is stopped
			return err
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := jobIDs(args)
			if err != nil {
				return err
			}
			return a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
				if array != 0 {
					if ids, err = liveMembers(ctx, c, array); err != nil {
						return err
					}
				}
				for _, id := range ids {
					if err := a.cancel(ctx, c, id, reason); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for others to read")
	cmd.Flags().Uint64Var(&array, "array", 0, "all members of the array whose first job has this number")
	return cmd
}

func (a *app) cancel(ctx context.Context, c schedulerv1.SchedulerServiceClient, id uint64, reason string) error {
	resp, err := c.CancelJob(ctx, &schedulerv1.CancelJobRequest{Id: id, Reason: reason, User: userName()})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(resp.GetJob())
	}
	_, err = fmt.Fprintf(a.out, "job %d is %s: %s\n", id, stateName(resp.GetJob().GetState()), resp.GetJob().GetReason())
	return err
}

func jobIDs(args []string) ([]uint64, error) {
	var ids []uint64
	for _, arg := range args {
		id, err := parseJobID(arg)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// liveMembers returns the members of an array that have not ended, the newest
// first: so those that wait are gone before others end and let them start.
func liveMembers(ctx context.Context, c schedulerv1.SchedulerServiceClient, array uint64) ([]uint64, error) {
	first, err := c.GetJob(ctx, &schedulerv1.GetJobRequest{Id: array})
	if err != nil {
		return nil, err
	}
	if first.GetJob().GetArray() != array {
		return nil, &exitError{exitNotFound, fmt.Errorf("job %d is not the first of an array: see %q", array, fmt.Sprintf("gangline show %d", array))}
	}
	var ids []uint64
	req := &schedulerv1.ListJobsRequest{Array: array, PageSize: 1000}
	for {
		page, err := c.ListJobs(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, j := range page.GetJobs() {
			if !final(j.GetState()) {
				ids = append(ids, j.GetId())
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			return ids, nil
		}
	}
}
