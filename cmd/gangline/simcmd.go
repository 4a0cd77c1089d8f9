package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/sim"
)

func (a *app) simCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate a cluster: the scheduler's own decisions under a virtual clock",
		Args:  noArgs,
	}
	onlyVerbs(cmd)
	cmd.AddCommand(a.simRunCmd())
	return cmd
}

func (a *app) simRunCmd() *cobra.Command {
	cfg := sim.DefaultConfig()
	var wall bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run synthetic jobs on a synthetic cluster, with faults, and check every rule after every command",
		Long: `Run synthetic jobs on a synthetic cluster. The same functions decide as in
production; time is virtual; nodes fail, agents restart, networks split and
leaders change. The rules that must hold are checked after every command, and a
broken one ends the run with the seed that shows it.

Equal flags give equal output, byte for byte, on any machine.`,
		Example: `  gangline sim run --seed 7
  gangline sim run --seed 7 --nodes 64 --jobs 5000 --json`,
		Args: noArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			began := time.Now()
			report, err := sim.Run(cfg)
			if err != nil {
				return err
			}
			took := time.Since(began)
			shown := time.Duration(0)
			if wall {
				shown = took
			}
			a.statef("simulated %s of %d jobs in %s", short(time.Duration(report.VirtualSeconds*float64(time.Second))), report.Jobs, took.Round(time.Millisecond))
			if a.json {
				return report.WriteJSON(a.out, shown)
			}
			return report.WriteText(a.out, shown)
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "number that fixes all randomness")
	f.IntVar(&cfg.Nodes, "nodes", cfg.Nodes, "nodes of the cluster")
	f.IntVar(&cfg.GPUsPerNode, "gpus-per-node", cfg.GPUsPerNode, "GPUs of each node")
	f.IntVar(&cfg.Jobs, "jobs", cfg.Jobs, "jobs that arrive")
	f.DurationVar(&cfg.Horizon, "horizon", cfg.Horizon, "virtual time in which jobs arrive and faults strike")
	f.Float64Var(&cfg.Load, "load", cfg.Load, "GPU time that jobs ask for, as a part of what there is")
	f.BoolVar(&cfg.Faults, "faults", cfg.Faults, "whether nodes, agents, networks and leaders fail")
	f.BoolVar(&wall, "wall", false, "add the wall-clock time and speed, which differ from run to run")
	return cmd
}
