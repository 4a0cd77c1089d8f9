package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/policyfile"
	"github.com/gangline/gangline/sim"
	"github.com/gangline/gangline/sim/htmlreport"
	"github.com/gangline/gangline/sim/record"
	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// simRunFlags are the flags of `gangline sim run`: those of a made-up cluster, and those of a recorded one.
type simRunFlags struct {
	jobs, nodes string // a number or a file
	wall        bool
	world       sim.Config

	replay            replay.Config
	policy, estimates string // files
	order             string
	out               simOut
	faults            string // of either kind of run
	trace             trace.Options
	synthetic         synthetic
}

func (a *app) simRunCmd() *cobra.Command {
	fl := newSimRunFlags()
	var scenario string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a recorded workload, or a made-up one with faults, through the scheduler's own functions",
		Long: `Run a workload on a cluster under a virtual clock. The same functions decide as
in production.

With files, --jobs and --nodes replay a recorded workload: what would have
happened, and how long would everybody have waited? Jobs are CSV, gzipped or
not, with a heading that names job_id, submit_s, duration_s and gpus, and
perhaps gpu_milli, gpu_type, cpu, mem_mib, user and queue; nodes are CSV with
node, gpus, and perhaps gpu_type, cpu, mem_mib and rack. What "sacct -P" and
"sinfo -N" write is read as it is, as are some published traces (--format; told
by how a file begins). Nothing fails, and a
job that is stopped for another keeps its work and pays --restart-cost; with
--faults jobs take time to start, save and stop, and machines, GPUs, agents and
leaders fail ("gangline sim faults" shows a file of that).

With numbers, they make up jobs and nodes from --seed. Nodes fail, agents
restart, networks split and leaders change; the rules that must hold are
checked after every command, and a broken one ends the run with the seed that
shows it. With --scenario the run is one that "gangline sim fuzz" wrote down.

With --synthetic a made-up workload is replayed as a recorded one would be:
arrivals go with the hour of the week, sizes and lengths are drawn from mixes or
from a recorded workload (like=FILE), on nodes that are made up (nodes=N) or
read from --nodes.

A recorded run shows how far it is on a terminal. Interrupted once, it ends with
a report of the time until then, marked as partial, and exit code 130;
interrupted again, it ends at once.

Equal inputs give equal output, byte for byte, on any machine, but for the wall
clock's part of it (--wall).`,
		Example: `  gangline sim run --seed 7 --nodes 64 --jobs 5000 --json
  gangline sim run --jobs philly.csv.gz --nodes nodes.csv --restart-cost 60
  gangline sim run --jobs philly.csv.gz --nodes nodes.csv --strict --order fifo
  gangline sim run --jobs philly.csv.gz --nodes nodes.csv --html report.html
  gangline sim run --jobs sacct.txt --nodes sinfo.txt --zone Europe/Berlin
  gangline sim run --jobs philly.csv.gz --nodes nodes.csv --faults default --seed 7
  gangline sim run --synthetic jobs=1000000,nodes=12500,load=0.9 --seed 1
  gangline sim run --synthetic like=philly.csv.gz,scale=2 --nodes nodes.csv`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if scenario != "" {
				return a.simScenario(cmd.LocalNonPersistentFlags(), scenario)
			}
			replays, err := fl.choose(cmd.Flags())
			switch {
			case err != nil:
				return err
			case replays:
				return repeatable(cmd, a.simReplay(cmd, fl))
			default:
				return a.simWorld(fl)
			}
		},
	}
	fl.register(cmd.Flags())
	fl.out.register(cmd.Flags())
	cmd.Flags().StringVar(&scenario, "scenario", "", "play a file that \"gangline sim fuzz\" wrote; takes no other flag but --json")
	return cmd
}

func newSimRunFlags() *simRunFlags {
	fl := &simRunFlags{world: sim.DefaultConfig(), replay: replay.DefaultConfig()}
	fl.jobs, fl.nodes = strconv.Itoa(fl.world.Jobs), strconv.Itoa(fl.world.Nodes)
	return fl
}

// madeUp and recorded are the flags that only one of the two kinds of run has.
var (
	madeUp   = []string{"gpus-per-node", "horizon", "load"}                                                                                                                                                                                                             //nolint:gochecknoglobals // table
	recorded = []string{"policy", "order", "strict", "partitions", "quotas", "estimates", "restart-cost", "grace", "drop-queue", "until", "check", "skip-bad", "sort", "format", "queue-column", "pai-jobs", "zone", "html", "jobs-csv", "samples-csv", "sample-every"} //nolint:gochecknoglobals // table
)

func (fl *simRunFlags) register(f *pflag.FlagSet) {
	f.StringVar(&fl.jobs, "jobs", fl.jobs, "file of recorded jobs, or how many to make up")
	f.StringVar(&fl.nodes, "nodes", fl.nodes, "file of nodes, or how many to make up")
	f.BoolVar(&fl.wall, "wall", false, "add the wall-clock time and speed, which differ from run to run (with files: unless --wall=false)")

	f.StringVar(&fl.policy, "policy", "", "file of the policy; default: the cluster's default policy")
	f.StringVar(&fl.order, "order", "", "order in place of the policy's: "+ordersText())
	f.BoolVar(&fl.replay.Strict, "strict", false, "the first job that cannot start blocks all others, none is stopped for another, nodes by the score consolidated")
	f.BoolVar(&fl.replay.Partitions, "partitions", false, "jobs of queue Q run only on nodes of rack vc-Q")
	f.BoolVar(&fl.replay.Quotas, "quotas", false, "one pool, in which queue Q has the GPUs of rack vc-Q as its quota, lent while unused")
	f.StringVar(&fl.estimates, "estimates", "", "file of guessed lengths (job_id, est_s) for orders that need lengths, or \""+timeLimits+"\" for those that sacct tells; default: the exact ones")
	f.Var(secondsFlag{&fl.replay.RestartCost}, "restart-cost", "how much longer a stopped job runs when it starts again")
	f.Var(secondsFlag{&fl.replay.Grace}, "grace", "how long a stopped job keeps its GPUs")
	f.StringSliceVar(&fl.trace.Drop, "drop-queue", nil, "queues whose jobs are left out")
	f.Var(secondsFlag{&fl.replay.Until}, "until", "virtual time at which to end; 0: when all jobs have ended")
	f.BoolVar(&fl.replay.Check, "check", false, "check the whole state at every moment (slow)")
	f.BoolVar(&fl.trace.SkipBad, "skip-bad", false, "pass over malformed rows of --jobs and count them")
	f.BoolVar(&fl.trace.Sort, "sort", false, "read all of --jobs into memory and sort it by submission; default: files may be out of order by "+strconv.Itoa(trace.Window)+" rows")

	f.Var(formatFlag{&fl.trace.Format}, "format", "how --jobs is written: "+trace.FormatsText())
	f.StringVar(&fl.trace.Queue, "queue-column", "", "of sacct: the column that names a job's queue, such as Account or QOS; default: Partition, or else Account")
	f.StringVar(&fl.trace.PAIJobs, "pai-jobs", "", "of pai: file of pai_job_table, which knows the jobs' users and when they were submitted")
	f.Var(zoneFlag{&fl.trace.Zone}, "zone", "time zone of times in --jobs that name none, such as Europe/Berlin")

	f.StringVar(&fl.synthetic.text, "synthetic", "", syntheticHelp)
	f.StringVar(&fl.faults, "faults", "", faultsHelp())
	f.Uint64Var(&fl.world.Seed, "seed", fl.world.Seed, "number that fixes all randomness of a made-up run, of --synthetic and of --faults")
	f.IntVar(&fl.world.GPUsPerNode, "gpus-per-node", fl.world.GPUsPerNode, "made-up run: GPUs of each node")
	f.DurationVar(&fl.world.Horizon, "horizon", fl.world.Horizon, "made-up run: virtual time in which jobs arrive and faults strike")
	f.Float64Var(&fl.world.Load, "load", fl.world.Load, "made-up run: GPU time that jobs ask for, as a part of what there is")
}

// choose tells which kind of run the flags ask for, and refuses a mixture.
func (fl *simRunFlags) choose(f *pflag.FlagSet) (replays bool, err error) {
	if fl.synthetic.text != "" {
		return true, fl.chooseSynthetic(f)
	}
	jobs, errJobs := strconv.Atoi(fl.jobs)
	nodes, errNodes := strconv.Atoi(fl.nodes)
	replays = errJobs != nil
	if (errNodes != nil) != replays {
		return false, usage("--jobs %s --nodes %s: give a file for both, to replay what was recorded, or a number for both", fl.jobs, fl.nodes)
	}
	others, kind := recorded, "needs --jobs and --nodes to be files"
	if replays {
		others, kind = madeUp, "is for made-up runs: --jobs and --nodes are files"
	}
	for _, name := range others {
		if f.Changed(name) {
			return false, usage("--%s %s", name, kind)
		}
	}
	fl.world.Jobs, fl.world.Nodes = jobs, nodes
	return replays, fl.setFaults(replays)
}

// chooseSynthetic checks the flags of a replay of a made-up workload.
func (fl *simRunFlags) chooseSynthetic(f *pflag.FlagSet) error {
	for _, name := range append([]string{"jobs", "estimates"}, madeUp...) {
		if f.Changed(name) {
			return usage("--%s is not for --synthetic, which has keys for what is made up", name)
		}
	}
	nodes := ""
	if f.Changed("nodes") {
		nodes = fl.nodes
	}
	fl.jobs = "synthetic"
	if err := fl.synthetic.parse(nodes, fl.world.Seed); err != nil {
		return err
	}
	return fl.setFaults(true)
}

// simWorld runs a made-up workload.
func (a *app) simWorld(fl *simRunFlags) error {
	if err := fl.world.Validate(); err != nil {
		return &exitError{exitUsage, err}
	}
	began := time.Now()
	report, err := sim.Run(fl.world)
	if err != nil {
		return err
	}
	took := time.Since(began)
	shown := time.Duration(0)
	if fl.wall {
		shown = took
	}
	a.statef("simulated %s of %d jobs in %s", short(time.Duration(report.VirtualSeconds*float64(time.Second))), report.Jobs, took.Round(time.Millisecond))
	if a.json {
		return report.WriteJSON(a.out, shown)
	}
	return report.WriteText(a.out, shown)
}

// simReplay runs a recorded workload.
func (a *app) simReplay(cmd *cobra.Command, fl *simRunFlags) (err error) {
	cfg, err := fl.config()
	if err != nil {
		return &exitError{exitUsage, err}
	}
	spareCollector()
	a.tellFormat(fl)
	bar, end := a.progress("replaying", fl.jobs, &fl.trace)
	defer func() { end() }()
	var told trace.Format
	fl.trace.Told = &told
	tr, err := fl.load()
	if err != nil {
		return &exitError{exitUsage, err}
	}
	files, err := fl.out.open()
	defer func() { err = errors.Join(err, fl.out.close()) }()
	if err != nil {
		return err
	}
	stop, done := fl.out.interruptible(cmd.Context())
	defer done()
	var rec *record.Record
	var pictures *replay.Watch
	if fl.out.html != "" {
		rec = record.New(tr.Nodes, false)
		pictures = rec.Watch()
	}
	began := time.Now()
	cfg.Watch = replay.Watches(stop, files, pictures, bar)
	report, err := replay.Run(cfg, tr)
	end()
	end = func() {}
	if err != nil {
		return err
	}
	report.Format = string(told)
	speed := fl.speed(cmd.Flags(), began)
	if err := fl.out.close(); err != nil {
		return err
	}
	if rec != nil {
		page := &htmlreport.Page{
			Title: fmt.Sprintf("%s on %s", filepath.Base(fl.jobs), filepath.Base(fl.nodes)), Command: a.commandLine(), Version: version,
			Speed: speed, Result: single("this run", report, rec),
		}
		if err := fl.out.page(page); err != nil {
			return err
		}
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

// speed is how fast a replay was, if that is to be told.
func (fl *simRunFlags) speed(f *pflag.FlagSet, began time.Time) *replay.Speed {
	if fl.wall || !f.Changed("wall") {
		return measured(began)
	}
	return nil
}

// config is how to replay.
func (fl *simRunFlags) config() (replay.Config, error) {
	cfg := fl.replay
	cfg.Order = cluster.OrderName(fl.order)
	if fl.policy != "" {
		data, err := os.ReadFile(fl.policy)
		if err != nil {
			return cfg, err
		}
		if cfg.Policy, err = policyfile.Parse(data); err != nil {
			return cfg, fmt.Errorf("%s: %w", fl.policy, err)
		}
	}
	return cfg, cfg.Validate()
}
