package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/forecast"
)

func (a *app) predictionsCmd() *cobra.Command {
	req := &schedulerv1.ListPredictionsRequest{}
	cmd := &cobra.Command{
		Use: "predictions [QUEUE]", Short: "Say what was learned of how long jobs run, and how well they were foretold",
		Long: `Say what the scheduler has learned of how long jobs run, and how far off it was.
The order "gangline" and the estimates of "gangline why" go by this. Lines are
about all jobs, those of a size, of a queue, and of a user under a name (without
its digits). TYPICAL is the GPU time that half of the latest of them needed; OFF BY
is by which factor, in the mean, they needed more or less than was expected when
they were submitted: x1.0 is exact.`,
		Args: upToOne("queue"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Queue = strings.Join(args, "")
			var got *schedulerv1.ListPredictionsResponse
			err := a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
				got, err = c.ListPredictions(ctx, req)
				return err
			})
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(got)
			case len(got.GetPredictions()) == 0:
				fmt.Fprintln(a.out, "No job of these has ended yet: nothing is learned.")
				return nil
			}
			rows := [][]string{{"QUEUE", "USER", "NAME", "GPUS", "ENDED", "TYPICAL", "OFF BY"}}
			for _, p := range got.GetPredictions() {
				gpus := "any"
				if p.GetGpus() > 0 {
					gpus = gpuCount(p.GetGpus())
				}
				rows = append(rows, []string{
					anyText(p.GetQueue()), anyText(p.GetUser()), anyText(p.GetName()), gpus, fmt.Sprint(p.GetJobs()),
					forecast.Brief(time.Duration(p.GetTypicalGpuSeconds())*time.Second) + " GPU time", fmt.Sprintf("x%.1f", math.Exp2(p.GetErrorDoublings())),
				})
			}
			return table(a.out, rows)
		},
	}
	cmd.Flags().Int32VarP(&req.Limit, "limit", "n", 20, "at most this many lines")
	cmd.Flags().BoolVar(&req.Stale, "stale", false, "take what the server asked has, without asking the leader")
	return cmd
}

// anyText is a word, or what stands for all.
func anyText(s string) string {
	if s == "" {
		return "any"
	}
	return s
}
