package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/nodeagent/workerclient"
)

func (a *app) workerCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Talk to the agent from inside a job: rendezvous, progress, checkpoints, notices",
		Long: `What a worker can tell and ask its agent, for shell scripts. It works only inside
a job, where GANGLINE_AGENT_SOCKET names the agent's socket. Programs in Go use
the package nodeagent/workerclient.`,
	}
	onlyVerbs(cmd)
	cmd.AddCommand(a.workerProgress(), a.workerCheckpoint(), a.workerSaveDue(), a.workerRendezvous(), a.workerNotices())
	return cmd
}

// withAgent runs f with a connection to the agent, bounded by --timeout.
func (a *app) withAgent(ctx context.Context, f func(context.Context, *workerclient.Client) error) error {
	ctx, cancel := a.callContext(ctx)
	defer cancel()
	c, err := workerclient.Dial(ctx)
	if err != nil {
		return err
	}
	if err := inJob(c); err != nil {
		return err
	}
	if err := f(ctx, c); err != nil {
		_ = c.Close() // the first error says more
		return err
	}
	return c.Close()
}

// inJob closes the client and returns an error outside of jobs.
func inJob(c *workerclient.Client) error {
	if c.Environment().Socket != "" {
		return nil
	}
	_ = c.Close() // nothing was opened
	return usage("GANGLINE_AGENT_SOCKET is not set: this is not a worker of a job")
}

func (a *app) workerProgress() *cobra.Command {
	var p workerclient.Progress
	var metrics map[string]string
	cmd := &cobra.Command{
		Use: "progress --step N [--total N] [--metric NAME=VALUE]", Short: "Tell how far the job is", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.Metrics = map[string]float64{}
			for k, v := range metrics {
				f, err := strconv.ParseFloat(v, 64)
				if err != nil {
					return usage("--metric %s=%s: not a number", k, v)
				}
				p.Metrics[k] = f
			}
			return a.withAgent(cmd.Context(), func(_ context.Context, c *workerclient.Client) error {
				c.ReportProgress(p) // Close sends it
				return nil
			})
		},
	}
	cmd.Flags().Int64Var(&p.Step, "step", 0, "training step")
	cmd.Flags().Int64Var(&p.TotalSteps, "total", 0, "number of all steps")
	cmd.Flags().Float64Var(&p.DataEpoch, "data-epoch", 0, "passes over the data")
	cmd.Flags().StringToStringVar(&metrics, "metric", nil, "a metric; may be repeated")
	return cmd
}

func (a *app) workerCheckpoint() *cobra.Command {
	var cp workerclient.Checkpoint
	cmd := &cobra.Command{
		Use: "checkpoint --step N --path DIR", Short: "Tell that a checkpoint is safely on the shared storage", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cp.Path == "" {
				return usage("--path is needed")
			}
			return a.withAgent(cmd.Context(), func(ctx context.Context, c *workerclient.Client) error {
				return c.ReportCheckpoint(ctx, cp)
			})
		},
	}
	cmd.Flags().Int64Var(&cp.Step, "step", 0, "training step that it holds")
	cmd.Flags().StringVar(&cp.Path, "path", "", "where it is")
	cmd.Flags().Int64Var(&cp.Bytes, "bytes", 0, "its size")
	cmd.Flags().DurationVar(&cp.Cost, "cost", 0, "how long the save held up the training (default: the time since save-due said so)")
	return cmd
}

func (a *app) workerSaveDue() *cobra.Command {
	var step int64
	cmd := &cobra.Command{
		Use: "save-due --step N", Short: "Tell by the exit code whether to save now, by the job's checkpoint.interval", Args: noArgs,
		Long: `Tell whether to save now, by checkpoint.interval of the job: exit code 0 says yes,
1 no. A save that is due is told once. A job that says no interval gets no, and a
sentence.`,
		Example: `  if gangline worker save-due --step "$step"; then save "$step"; fi`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if step < 0 {
				return usage("--step %d is negative", step)
			}
			var due, known bool
			err := a.withAgent(cmd.Context(), func(ctx context.Context, c *workerclient.Client) error {
				due, known = c.SaveDue(ctx, step)
				return nil
			})
			switch {
			case err != nil:
				return err
			case !known:
				return &exitError{exitFailure, fmt.Errorf("the job says no checkpoint.interval: when it saves is up to the program")}
			case !due:
				return &exitError{exitFailure, nil}
			}
			return nil
		},
	}
	cmd.Flags().Int64Var(&step, "step", 0, "training steps done since the start of the job")
	return cmd
}

func (a *app) workerRendezvous() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: "rendezvous --address HOST:PORT", Short: "Wait for all ranks and print their addresses, by rank", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAgent(cmd.Context(), func(ctx context.Context, c *workerclient.Client) error {
				peers, err := c.Rendezvous(ctx, address)
				if err != nil {
					return err
				}
				if a.json {
					return json.NewEncoder(a.out).Encode(peers)
				}
				_, err = fmt.Fprintln(a.out, strings.Join(peers, "\n"))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&address, "address", "", "where this rank can be reached; host 0.0.0.0 means this node")
	return cmd
}

func (a *app) workerNotices() *cobra.Command {
	return &cobra.Command{
		Use: "notices", Short: "Wait for the next notice, such as a stop, and print it", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := workerclient.Dial(cmd.Context())
			if err != nil {
				return err
			}
			if err := inJob(c); err != nil {
				return err
			}
			defer func() { _ = c.Close() }() // nothing is lost
			select {
			case n, ok := <-c.Notices():
				if !ok {
					return fmt.Errorf("the agent sends no more notices")
				}
				return json.NewEncoder(a.out).Encode(struct {
					Reason    string    `json:"reason"`
					Terminate time.Time `json:"terminate"`
					Kill      time.Time `json:"kill"`
				}{n.Reason, n.Terminate, n.Kill})
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			}
		},
	}
}
