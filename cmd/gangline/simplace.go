package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/replay"
)

func (a *app) simPlaceCmd() *cobra.Command {
	cfg := replay.DefaultPlaceConfig()
	var order, nodes, score string
	wall := true
	cmd := &cobra.Command{
		Use:   "place",
		Short: "Place an order of arrivals on nodes, without a queue: how well does the placement score pack?",
		Long: `Place pods on nodes with the scheduler's own placement. What finds no room when
it arrives is lost; nothing waits and nothing moves.

Each pod of --order-file arrives once and stays. With --departures LOAD pods are
drawn from the file instead, as a Poisson process that asks for LOAD times the
cluster's GPUs, and leave after exponential lifetimes; measured is the average
over time.

The order is CSV, gzipped or not, with a heading that names job_id and gpus, and
perhaps gpu_milli, gpu_type, cpu and mem_mib; nodes are as for "gangline sim run".
Pods without GPUs take CPUs and memory of nodes with GPUs.`,
		Example: `  gangline sim place --order-file order.csv.gz --nodes nodes.csv --score fgd
  gangline sim place --order-file order.csv.gz --nodes nodes.csv --departures 0.97 --seed 3 --json`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if order == "" || nodes == "" {
				return usage("--order-file and --nodes are needed: the pods that arrive, and where they go")
			}
			cfg.Score = cluster.ScoreName(score)
			if err := cfg.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			pods, err := replay.ReadOrder(order)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			on, err := replay.ReadNodes(nodes)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			began := time.Now()
			report, err := replay.Place(cfg, pods, on)
			if err != nil {
				return err
			}
			var speed *replay.Speed
			if wall {
				speed = measured(began)
			}
			if a.json {
				return report.WriteJSON(a.out, speed)
			}
			return report.WriteText(a.out, speed)
		},
	}
	f := cmd.Flags()
	f.StringVar(&order, "order-file", "", "file of the pods in the order in which they arrive")
	f.StringVar(&nodes, "nodes", "", "file of the nodes")
	f.StringVar(&score, "score", string(cfg.Score), "how nodes are chosen: gangline, fgd or bestfit")
	f.Float64Var(&cfg.Departures, "departures", 0, "load of arrivals that leave again; 0: nothing leaves")
	f.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "with --departures: number that fixes all randomness")
	f.BoolVar(&cfg.Known, "known-mix", false, "tell the score from the start what will be asked for, as the published figures have it; default: it learns")
	f.BoolVar(&wall, "wall", wall, "add the wall-clock time and speed, which differ from run to run")
	return cmd
}
