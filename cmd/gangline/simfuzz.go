package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/sim"
)

// simFuzzFlags are the flags of `gangline sim fuzz`.
type simFuzzFlags struct {
	seeds    string
	parallel int
	limit    time.Duration // wall time
	shrink   int           // plays for each failure
	dir      string
}

// maxSeeds is how many worlds one call may play: the outcomes are kept until the end.
const maxSeeds = 10_000_000

func (a *app) simFuzzCmd() *cobra.Command {
	fl := simFuzzFlags{seeds: "1..20", parallel: runtime.GOMAXPROCS(0), shrink: 300, dir: "."}
	cmd := &cobra.Command{
		Use:   "fuzz",
		Short: "Play random worlds in which everything goes wrong, check every rule, and make failures small",
		Long: `Play one random world for each seed: its nodes, policy, jobs and faults are
drawn from the seed. After every command the rules that must hold are checked;
once the faults stop, every job must end. docs/simulator.md lists both.

What fails is made smaller (fewer faults, jobs, nodes) while it fails in the
same way, and written to a file. "gangline sim run --scenario FILE" plays that
again, exactly. The output says commit, seed, file and command.

Equal seeds give equal output, whatever --jobs is. Exit code 0: nothing was
found; 1: something was. Interrupted, it tells of the seeds that were played.`,
		Example: `  gangline sim fuzz --seeds 1..1000 --jobs 4
  gangline sim fuzz --seeds 1..100000 --for 10m --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, to, err := parseSeeds(fl.seeds)
			if err != nil {
				return err
			}
			if fl.parallel < 1 || fl.parallel > 1024 || fl.shrink < 0 {
				return usage("--jobs must be in 1..1024, and --shrink not negative")
			}
			return a.simFuzz(cmd.Context(), &fl, from, to)
		},
	}
	f := cmd.Flags()
	f.StringVar(&fl.seeds, "seeds", fl.seeds, "worlds to play, as FIRST..LAST or one number")
	f.IntVar(&fl.parallel, "jobs", fl.parallel, "how many to play at once")
	f.DurationVar(&fl.limit, "for", 0, "begin no other world after this time by the wall clock; 0: play all")
	f.IntVar(&fl.shrink, "shrink", fl.shrink, "how many plays may be spent on making one failure smaller; 0: none")
	f.StringVar(&fl.dir, "dir", fl.dir, "folder for the scenarios of failures")
	return cmd
}

// parseSeeds reads "A..B" or "A".
func parseSeeds(s string) (from, to uint64, err error) {
	first, last, ranged := strings.Cut(s, "..")
	if !ranged {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 63)
	to, err2 := strconv.ParseUint(last, 10, 63)
	switch {
	case err1 != nil || err2 != nil || from > to:
		return 0, 0, usage("--seeds %q: give two numbers, the smaller first, such as 1..1000", s)
	case to-from >= maxSeeds:
		return 0, 0, usage("--seeds %q: one call plays at most %d", s, maxSeeds)
	}
	return from, to, nil
}

// played is what came of one seed.
type played struct {
	done    bool
	report  sim.Report
	failure *sim.Failure
	plays   int // spent on making it smaller
	size    int // before that
}

// simFuzz plays the seeds, several at once, and tells of them in their order.
func (a *app) simFuzz(ctx context.Context, fl *simFuzzFlags, from, to uint64) error {
	began := time.Now()
	sum := fuzzSummary{Commit: version, First: from, Last: to, Failures: []fuzzFailure{}}
	var told error
	next, slots := from, make(map[uint64]*played)
	for next <= to && told == nil && ctx.Err() == nil && (fl.limit <= 0 || time.Since(began) < fl.limit) {
		// Batches keep the order of the output and bound what is remembered.
		end := min(to, next+uint64(4*fl.parallel)-1) //nolint:gosec // small
		var g errgroup.Group
		g.SetLimit(fl.parallel)
		for seed := next; seed <= end; seed++ {
			p := &played{}
			slots[seed] = p
			g.Go(func() error {
				if ctx.Err() == nil && (fl.limit <= 0 || time.Since(began) < fl.limit) {
					p.play(seed, fl.shrink)
				}
				return nil
			})
		}
		_ = g.Wait()
		for seed := next; seed <= end && told == nil; seed++ {
			if p := slots[seed]; p.done {
				told = sum.add(a, fl, seed, p)
			}
			delete(slots, seed)
		}
		next = end + 1
	}
	if told != nil {
		return told
	}
	return sum.end(a, ctx.Err() != nil)
}

// play plays one seed, and makes a failure small.
func (p *played) play(seed uint64, shrink int) {
	p.done = true
	p.report, p.failure = sim.Fuzz(seed)
	if p.failure != nil {
		p.size = p.failure.Scenario.Size()
		if shrink > 0 {
			p.failure, p.plays = sim.Shrink(p.failure, shrink)
		}
	}
}

// fuzzSummary is all that was found; its names are those of --json.
type fuzzSummary struct {
	Commit   string          `json:"commit"`
	First    uint64          `json:"first_seed"`
	Last     uint64          `json:"last_seed"`
	Partial  bool            `json:"partial"` // time ran out, or it was interrupted
	Played   int             `json:"played"`
	Failed   int             `json:"failed"`
	Jobs     int             `json:"jobs"`
	Commands uint64          `json:"commands"`
	Checks   int             `json:"full_checks"`
	Hashes   int             `json:"hash_checks"`
	Restores int             `json:"restores"`
	Virtual  float64         `json:"virtual_s"`
	Faults   sim.FaultCounts `json:"faults"`
	Failures []fuzzFailure   `json:"failures"`
}

// fuzzFailure is one failure.
type fuzzFailure struct {
	Commit   string `json:"commit"`
	Seed     uint64 `json:"seed"`
	Error    string `json:"error"`
	Scenario string `json:"scenario"`
	Command  string `json:"command"`
	Size     int    `json:"size"`   // nodes, jobs, faults and mishaps of the scenario
	Before   int    `json:"before"` // and of the world as it was drawn
	Plays    int    `json:"plays"`
}

// add takes in one seed, and writes down and tells a failure at once.
func (s *fuzzSummary) add(a *app, fl *simFuzzFlags, seed uint64, p *played) error {
	r := &p.report
	s.Played++
	s.Jobs += r.Jobs
	s.Commands += r.Commands
	s.Checks += r.FullChecks
	s.Hashes += r.HashChecks
	s.Restores += r.Restores
	s.Virtual += r.VirtualSeconds
	s.Faults.Add(&r.Faults)
	if p.failure == nil {
		return nil
	}
	s.Failed++
	sc := *p.failure.Scenario
	sc.Commit = version
	data, err := sc.Encode()
	if err != nil {
		return err
	}
	file := filepath.Join(fl.dir, fmt.Sprintf("scenario-%d.json", seed))
	if err := os.WriteFile(file, data, 0o644); err != nil { //nolint:gosec // G306: it is for others to read
		return fmt.Errorf("write the scenario of seed %d: %w", seed, err)
	}
	f := fuzzFailure{
		Commit: version, Seed: seed, Error: sc.Error, Scenario: file, Command: "gangline sim run --scenario " + file,
		Size: sc.Size(), Before: p.size, Plays: p.plays,
	}
	s.Failures = append(s.Failures, f)
	if !a.json {
		fmt.Fprintf(a.out, "seed %d fails at commit %s: %s\n  scenario  %s (size %d, drawn with %d; %d plays)\n  again     %s\n  last events:\n    %s\n",
			seed, version, p.failure.Err.Cause, file, f.Size, f.Before, f.Plays, f.Command, strings.Join(p.failure.Err.Events, "\n    "))
	}
	return nil
}

// end tells the whole.
func (s *fuzzSummary) end(a *app, stopped bool) error {
	s.Partial = uint64(s.Played) <= s.Last-s.First //nolint:gosec // counts
	if a.json {
		if err := json.NewEncoder(a.out).Encode(s); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.out, "%d of %d worlds played (seeds %d..%d), %d failed\n", s.Played, s.Last-s.First+1, s.First, s.Last, s.Failed)
		fmt.Fprintf(a.out, "%d jobs, %d commands in %.0f hours of virtual time; checked %d times whole, %d times against each other, %d servers rebuilt\n",
			s.Jobs, s.Commands, s.Virtual/3600, s.Checks, s.Hashes, s.Restores)
		fmt.Fprintf(a.out, "faults: %s\n", s.Faults.Words())
	}
	switch {
	case stopped:
		return interrupted()
	case s.Failed > 0:
		return &exitError{exitFailure, fmt.Errorf("%d of %d worlds failed", s.Failed, s.Played)}
	}
	return nil
}

// simScenario plays a scenario from its file.
func (a *app) simScenario(flags *pflag.FlagSet, path string) error {
	others := ""
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Name != "scenario" {
			others = f.Name
		}
	})
	if others != "" {
		return usage("--%s does not go with --scenario, whose file says all", others)
	}
	f, err := os.Open(path)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	sc, err := sim.ReadScenario(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return &exitError{exitUsage, fmt.Errorf("%s: %w", path, err)}
	}
	report, err := sim.Play(sc)
	if err != nil {
		return fmt.Errorf("%s (written at commit %s, played at %s): %w", path, sc.Commit, version, err)
	}
	if a.json {
		return report.WriteJSON(a.out, 0)
	}
	return report.WriteText(a.out, 0)
}
