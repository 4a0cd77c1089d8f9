package main

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/cmd/gangline/internal/calibrate"
	"github.com/gangline/gangline/cmd/gangline/internal/demo"
)

// calibrationServers is how many servers the real cluster has.
const calibrationServers = 3

// tolerated is how far the simulator's average completion time may be from the cluster's.
const tolerated = 0.05

func (a *app) simCalibrateCmd() *cobra.Command {
	cfg := calibrate.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "calibrate",
		Short: "Hold the simulator against a real cluster: one workload on both, and how far apart they are",
		Long: `Start a cluster of real processes on this machine (3 servers, agents with
emulated GPUs), run short jobs on it, run the same jobs in the simulator, and
compare their completion times. The simulator is told what a decision, a launch
and an end were measured to cost:

  predicted   the lengths that jobs were to have, and these costs as averages
  replayed    for each job how long it held its GPUs; only waits are simulated

The exit status is 0 only if both averages are within 5 % of the cluster's. It
takes about two minutes; on a machine that does much else, costs vary more.`,
		Example: `  gangline sim calibrate
  gangline sim calibrate --jobs 40 --nodes 2 --gpus-per-node 4 --mean 2s`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := cfg.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			cluster, err := demo.StartLocal(cmd.Context(), self, calibrationServers, cfg.Nodes, cfg.GPUs)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, cluster.Close()) }()
			cfg.Dir = cluster.Dir
			a.statef("%d nodes have joined; %d jobs run", cfg.Nodes, cfg.Jobs)
			run, err := calibrate.Measure(cmd.Context(), cluster.API, cfg)
			if err != nil {
				return err
			}
			return a.calibrated(cfg, run)
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Jobs, "jobs", cfg.Jobs, "how many jobs")
	f.IntVar(&cfg.Nodes, "nodes", cfg.Nodes, "how many agents")
	f.IntVar(&cfg.GPUs, "gpus-per-node", cfg.GPUs, "emulated GPUs of each agent")
	f.DurationVar(&cfg.Mean, "mean", cfg.Mean, "mean length of a job")
	f.Float64Var(&cfg.Load, "load", cfg.Load, "GPU time that jobs ask for, as a part of what there is while they arrive")
	f.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "number that fixes the workload")
	return cmd
}

// calibrated compares and prints.
func (a *app) calibrated(cfg calibrate.Config, run *calibrate.Run) error {
	r, err := calibrate.Compare(cfg, run)
	if err != nil {
		return err
	}
	write := r.WriteText
	if a.json {
		write = r.WriteJSON
	}
	if err := write(a.out); err != nil {
		return err
	}
	if worst := max(math.Abs(r.PredictedError), math.Abs(r.ReplayedError)); worst > tolerated {
		return fmt.Errorf("the simulator's average completion time is %.1f %% off the cluster's, more than %.0f %%", 100*worst, 100*tolerated)
	}
	return nil
}
