package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) drainCmd() *cobra.Command {
	req := &schedulerv1.DrainNodeRequest{}
	var deadline time.Duration
	cmd := &cobra.Command{
		Use: "drain NODE --reason REASON [--deadline 30m]", Short: "Let a node take no new jobs", Args: exactArgs(1, "one node, by name or id"),
		Long: `Let a node take no new jobs. Those that run there may end by themselves; with
--deadline, those that are still there by then are stopped through the warning
signal and start again elsewhere from their newest checkpoint.`,
		Example: `  gangline drain n7 --reason "new fan" --deadline 30m
  gangline undrain n7`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(req.GetReason()) == "" {
				return usage("--reason: say why, for those whose jobs do not start there")
			}
			req.Node, req.User = args[0], userName()
			if cmd.Flags().Changed("deadline") {
				if deadline < 0 {
					return usage("--deadline: %s lies in the past", deadline)
				}
				ms := deadline.Milliseconds()
				req.DeadlineMs = &ms
			}
			var n *schedulerv1.Node
			err := a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
				resp, err := c.DrainNode(ctx, req)
				n = resp.GetNode()
				return err
			})
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(n)
			}
			_, err = fmt.Fprintln(a.out, drainedText(n))
			return err
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for others to read")
	cmd.Flags().DurationVar(&deadline, "deadline", 0, "move the jobs away that are still there after this time (default: they may end by themselves)")
	return cmd
}

func (a *app) undrainCmd() *cobra.Command {
	return &cobra.Command{
		Use: "undrain NODE", Short: "Let a drained node take jobs again", Args: exactArgs(1, "one node, by name or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var n *schedulerv1.Node
			err := a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
				resp, err := c.UndrainNode(ctx, &schedulerv1.UndrainNodeRequest{Node: args[0], User: userName()})
				n = resp.GetNode()
				return err
			})
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(n)
			}
			_, err = fmt.Fprintf(a.out, "node %s takes jobs\n", n.GetName())
			return err
		},
	}
}

// drainedText says what becomes of the jobs of a drained node.
func drainedText(n *schedulerv1.Node) string {
	out := fmt.Sprintf("node %s takes no new jobs: ", n.GetName())
	jobs := jobsOn(n)
	at := n.GetDrain().GetDeadlineUnixNs()
	switch {
	case len(jobs) == 0:
		return out + "it is empty"
	case at == 0:
		return out + fmt.Sprintf("%s may end by themselves", jobsText(jobs))
	default:
		return out + fmt.Sprintf("what is left of %s at %s is moved away", jobsText(jobs), timestamp(at))
	}
}

func jobsText(ids []string) string {
	if len(ids) == 1 {
		return "job " + ids[0]
	}
	return "jobs " + strings.Join(ids, ", ")
}

// jobsOn lists the numbers of jobs that hold a GPU of the node, or a share of one.
func jobsOn(n *schedulerv1.Node) []string {
	var ids []uint64
	for _, g := range n.GetGpus() {
		if g.GetJobId() != 0 {
			ids = append(ids, g.GetJobId())
		}
		for _, s := range g.GetShares() {
			ids = append(ids, s.GetJobId())
		}
	}
	slices.Sort(ids)
	var out []string
	for _, id := range slices.Compact(ids) {
		out = append(out, fmt.Sprint(id))
	}
	return out
}
