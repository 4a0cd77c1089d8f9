package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/htmlreport"
	"github.com/gangline/gangline/sim/record"
	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

func (a *app) simPlaceCmd() *cobra.Command {
	cfg := replay.DefaultPlaceConfig()
	var order, nodes, score string
	wall := true
	var out simOut
	cmd := &cobra.Command{
		Use:   "place",
		Short: "Place an order of arrivals on nodes, without a queue: how well does the placement score pack?",
		Long: `Place pods on nodes with the scheduler's own placement. What finds no room when
it arrives is lost; nothing waits and nothing moves.

Each pod of --order-file arrives once and stays. With --departures LOAD pods are
drawn from the file instead, as a Poisson process that asks for LOAD times the
cluster's GPUs, and leave after exponential lifetimes; measured is the average
over time. With --own-lifetimes each stays for as long as the file's duration_s
says, and the run begins in the balance of arrivals and departures. Pods of
which that is not known (no duration, or a status Pending) are left out then.

The order is CSV, gzipped or not, with a heading that names job_id and gpus, and
perhaps gpu_milli, gpu_type, cpu and mem_mib; nodes are as for "gangline sim run".
Pods without GPUs take CPUs and memory of nodes with GPUs.

Interrupted once, it ends with a report of what had arrived by then, marked as
partial, and exit code 130; interrupted again, it ends at once.`,
		Example: `  gangline sim place --order-file order.csv.gz --nodes nodes.csv --score fgd
  gangline sim place --order-file order.csv.gz --nodes nodes.csv --departures 0.97 --seed 3 --json
  gangline sim place --order-file jobs.csv.gz --nodes nodes.csv --departures 0.97 --own-lifetimes`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if order == "" || nodes == "" {
				return usage("--order-file and --nodes are needed: the pods that arrive, and where they go")
			}
			cfg.Score = cluster.ScoreName(score)
			if err := cfg.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			pods, err := trace.ReadOrder(order)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			on, err := trace.ReadNodes(nodes)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			return a.simPlace(cmd, &out, cfg, pods, on, wall)
		},
	}
	f := cmd.Flags()
	f.StringVar(&order, "order-file", "", "file of the pods in the order in which they arrive")
	f.StringVar(&nodes, "nodes", "", "file of the nodes")
	f.StringVar(&score, "score", string(cfg.Score), "how nodes are chosen: gangline, fgd, bestfit or consolidated")
	f.Float64Var(&cfg.Departures, "departures", 0, "load of arrivals that leave again; 0: nothing leaves")
	f.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "with --departures: number that fixes all randomness")
	f.BoolVar(&cfg.Own, "own-lifetimes", false, "with --departures: pods stay for as long as their duration_s says, instead of exponential times")
	f.BoolVar(&cfg.Known, "known-mix", false, "tell the score from the start what will be asked for, as the published figures have it; default: it learns")
	f.BoolVar(&wall, "wall", wall, "add the wall-clock time and speed, which differ from run to run")
	f.StringVar(&out.html, "html", "", "also write a report with pictures to this file")
	f.StringVar(&out.jobsCSV, "jobs-csv", "", "also write every pod that arrives, and where it went, to this file as CSV")
	return cmd
}

// simPlace places the pods and writes what came of it.
func (a *app) simPlace(cmd *cobra.Command, out *simOut, cfg replay.PlaceConfig, pods []trace.Job, on []trace.Node, wall bool) (err error) {
	defer func() { err = errors.Join(err, out.close()) }()
	err = out.create(out.jobsCSV, func(w io.Writer) (func() error, error) {
		c, err := record.NewPodsCSV(w)
		cfg.Pod = c.Pod
		return c.Flush, err
	})
	if err != nil {
		return err
	}
	_, done := out.interruptible(cmd.Context())
	defer done()
	bar := a.terminalBar("placing")
	cfg.Progress = func(part float64) bool {
		if bar != nil {
			bar.part(part)
		}
		return !out.stopped.Load()
	}
	began := time.Now()
	report, err := replay.Place(cfg, pods, on)
	if bar != nil {
		bar.end()
	}
	if err != nil {
		return err
	}
	var speed *replay.Speed
	if wall {
		speed = measured(began)
	}
	title := fmt.Sprintf("%s on %s", filepath.Base(cmd.Flag("order-file").Value.String()), filepath.Base(cmd.Flag("nodes").Value.String()))
	if err := out.page(&htmlreport.Page{Title: title, Command: a.commandLine(), Version: version, Speed: speed, Place: report}); err != nil {
		return err
	}
	write := report.WriteText
	if a.json {
		write = report.WriteJSON
	}
	if err := write(a.out, speed); err != nil || !report.Partial {
		return err
	}
	return interrupted()
}
