package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/forecast"
	"github.com/gangline/gangline/scheduler/policyfile"
	"github.com/gangline/gangline/sim/trace"
	"github.com/gangline/gangline/sim/whatif"
)

// whatIfFlags are what would be otherwise, as typed.
type whatIfFlags struct {
	snapshot, save, policy        string // files
	add, racks, nodes, jobs, quot []string
	arrivals                      string
	scale                         float64
	seed                          uint64
	runs                          int
	ahead, span                   time.Duration
}

func (a *app) simWhatIfCmd() *cobra.Command {
	q := whatif.DefaultQuestion()
	fl := whatIfFlags{runs: q.Runs, ahead: q.Horizon, span: q.Span, scale: 1, seed: 1}
	cmd := &cobra.Command{
		Use:   "whatif",
		Short: "Let the live cluster go on as it is, and beside it with other nodes or another policy: who gains, who loses?",
		Long: `Take a snapshot of the live cluster and let its own scheduler go on from there
under a virtual clock: as it is, and with the changes that flags name. The answer
says how long jobs wait, what is used, when what is there now has ended, and which
queues, users and jobs gain or lose. Nothing in the cluster changes. Without a
change it says what is expected of the cluster as it is.

How long jobs run is drawn, --runs times, from what jobs like them have needed;
in one run a job is equally long on both sides. Nodes that fail are not foreseen,
and nobody submits anything, unless --arrivals names a file of jobs that those to
come are made to resemble: a trace, or what "gangline export" wrote.

The snapshot has no commands, environments or directories of jobs. --save keeps
it in a file, and --snapshot goes on from there without a cluster.

A node or rack that is dropped is drained at once and for good: its jobs are
warned, keep what they have done, and wait again.

Interrupted once, it answers with the runs until then, marked as partial, and
exit code 130; interrupted again, it ends at once.`,
		Example: `  gangline sim whatif --add-nodes 4:like=n1
  gangline sim whatif --drop-rack r7 --save monday.snapshot
  gangline sim whatif --snapshot monday.snapshot --policy new.yaml --json
  gangline sim whatif --quota research=h100:64 --arrivals jobs.csv`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.simWhatIf(cmd.Context(), &fl, q) },
	}
	f := cmd.Flags()
	f.StringVar(&fl.snapshot, "snapshot", "", "file of a snapshot that --save wrote, instead of the live cluster")
	f.StringVar(&fl.save, "save", "", "also write the snapshot to this file")
	f.StringArrayVar(&fl.add, "add-nodes", nil, "nodes more: N, or N:like=NODE to be like that one (may be given several times)")
	f.StringSliceVar(&fl.racks, "drop-rack", nil, "racks that go, by the names that the policy's topology gives them")
	f.StringSliceVar(&fl.nodes, "drop-node", nil, "nodes that go, by name")
	f.StringVar(&fl.policy, "policy", "", "file of another policy")
	f.StringArrayVar(&fl.quot, "quota", nil, "another quota of a queue: QUEUE=TYPE:GPUS, or QUEUE=any:GPUS (may be given several times)")
	f.StringSliceVar(&fl.jobs, "without-job", nil, "jobs that are cancelled, by number")
	f.StringVar(&fl.arrivals, "arrivals", "", "file of jobs that those yet to come resemble, in all that \"gangline sim run --synthetic like=FILE\" keeps")
	f.Float64Var(&fl.scale, "scale", fl.scale, "with --arrivals: what their rate is multiplied by")
	f.Uint64Var(&fl.seed, "seed", fl.seed, "with --arrivals: number that fixes all randomness")
	f.IntVar(&fl.runs, "runs", fl.runs, "how often lengths are drawn, 1.."+strconv.Itoa(whatif.MaxRuns))
	f.DurationVar(&fl.ahead, "ahead", fl.ahead, "how far to look ahead")
	f.DurationVar(&fl.span, "span", fl.span, "from now on, for how long the GPUs that are held are counted")
	return cmd
}

// simWhatIf takes or reads the snapshot and answers.
func (a *app) simWhatIf(ctx context.Context, fl *whatIfFlags, q whatif.Question) error {
	changes, err := fl.changes()
	if err != nil {
		return err
	}
	if fl.runs < 1 || fl.runs > whatif.MaxRuns || fl.ahead <= 0 || fl.span <= 0 {
		return usage("--runs %d, --ahead %s, --span %s: runs are 1..%d, times above 0", fl.runs, fl.ahead, fl.span, whatif.MaxRuns)
	}
	snap, err := a.snapshot(ctx, fl.snapshot)
	if err != nil {
		return err
	}
	if fl.save != "" {
		if err := snap.write(fl.save); err != nil {
			return err
		}
		a.statef("the snapshot is in %s", fl.save)
	}
	q.State, q.Now, q.Changes, q.Runs, q.Horizon, q.Span = snap.state, snap.at, changes, fl.runs, fl.ahead, fl.span
	if fl.arrivals != "" {
		q.Arrivals = fl.coming(snap.state)
	}
	spareCollector()
	out := &simOut{}
	_, done := out.interruptible(ctx)
	defer done()
	bar := a.terminalBar("looking ahead")
	q.Progress = func(done, all int) bool {
		if bar != nil {
			bar.part(float64(done) / float64(all))
		}
		return !out.stopped.Load()
	}
	answer, err := whatif.Ask(q)
	if bar != nil {
		bar.end()
	}
	switch {
	case errors.Is(err, whatif.ErrStopped):
		return interrupted()
	case err != nil:
		return &exitError{exitUsage, err}
	case a.json:
		err = json.NewEncoder(a.out).Encode(answer)
	default:
		err = answer.WriteText(a.out)
	}
	if err != nil || !out.stopped.Load() {
		return err
	}
	return interrupted()
}

// changes reads the flags that say what would be otherwise, in this order: the policy, quotas of it, nodes, jobs.
func (fl *whatIfFlags) changes() ([]whatif.Change, error) {
	var out []whatif.Change
	if fl.policy != "" {
		data, err := os.ReadFile(fl.policy)
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		p, err := policyfile.Parse(data)
		if err == nil {
			err = policyfile.ForServers(p)
		}
		if err != nil {
			return nil, usage("%s: %w", fl.policy, err)
		}
		out = append(out, whatif.Policy(p, fl.policy))
	}
	for _, text := range fl.quot {
		queue, rest, _ := strings.Cut(text, "=")
		gpuType, count, ok := strings.Cut(rest, ":")
		gpus, err := strconv.ParseInt(count, 10, 64)
		if !ok || err != nil || gpus < 0 || queue == "" || gpuType == "" {
			return nil, usage("--quota: %q is not QUEUE=TYPE:GPUS, such as research=h100:64 or research=any:64", text)
		}
		if gpuType == "any" {
			gpuType = ""
		}
		out = append(out, whatif.Quota(queue, gpuType, gpus))
	}
	for _, text := range fl.add {
		count, like, has := strings.Cut(text, ":like=")
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 || n > cluster.MaxNodes || has && like == "" {
			return nil, usage("--add-nodes: %q is not N or N:like=NODE, such as 4:like=n1", text)
		}
		out = append(out, whatif.AddNodes(n, like))
	}
	for _, name := range fl.racks {
		out = append(out, whatif.DropRack(name))
	}
	for _, name := range fl.nodes {
		out = append(out, whatif.DropNode(name))
	}
	for _, text := range fl.jobs {
		id, err := parseJobID(text)
		if err != nil {
			return nil, err
		}
		out = append(out, whatif.WithoutJob(cluster.JobID(id)))
	}
	return out, nil
}

// coming makes up the jobs that are yet to come, like those of a file.
func (fl *whatIfFlags) coming(s *cluster.State) func() (func() (forecast.Arrival, error), error) {
	c := trace.DefaultSynthetic()
	c.Seed, c.Scale, c.Load = fl.seed, fl.scale, 0
	c.Like = func() (trace.Source, error) { return trace.OpenJobs(fl.arrivals, trace.Options{}) }
	return func() (func() (forecast.Arrival, error), error) {
		src, err := c.Open()
		if err != nil {
			return nil, fmt.Errorf("--arrivals %s: %w", fl.arrivals, err)
		}
		return whatif.Coming(src, s), nil
	}
}
