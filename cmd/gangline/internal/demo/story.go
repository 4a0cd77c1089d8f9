package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// Config says what to show.
type Config struct {
	Gangline   string // the gangline binary
	Digits     string // the digits training program
	Report     string // file for the JSON report; empty: none
	Dir        string // directory for everything; empty: a temporary one
	Out        io.Writer
	TTY        bool // Out is a terminal
	Servers    int
	Nodes      int
	GPUs       int // of each node
	Limit      time.Duration
	DigitsArgs []string // arguments of the training program
}

// DefaultConfig is the demo of the README.
func DefaultConfig() Config {
	return Config{
		Servers: 3, Nodes: 4, GPUs: 8, Limit: 170 * time.Second,
		// The pause makes a training of two seconds last long enough to watch, and to be interrupted.
		DigitsArgs: []string{"--epochs", "60", "--checkpoint-every", "100", "--step-delay", "15ms"},
	}
}

// Run plays the demo. It returns an error if anything it shows did not hold.
// Everything that it started is gone when it returns.
func Run(ctx context.Context, cfg Config) error {
	for _, bin := range []string{cfg.Gangline, cfg.Digits} {
		if _, err := os.Stat(bin); err != nil {
			return fmt.Errorf("the demo needs the program %s: build it with \"make build\": %w", bin, err)
		}
	}
	dir := cfg.Dir
	if dir == "" {
		tmp, err := os.MkdirTemp("", "gangline-demo-")
		if err != nil {
			return err
		}
		dir = tmp
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Limit, fmt.Errorf("the demo was not over after %s", cfg.Limit))
	defer cancel()
	p, err := newProcesses(cfg.Gangline, dir, cfg.Servers, cfg.Nodes, cfg.GPUs)
	if err != nil {
		return err
	}
	s := &story{cfg: cfg, p: p, view: newView(cfg.Out, cfg.TTY), report: Report{Schedulers: cfg.Servers, Nodes: cfg.Nodes, GPUs: cfg.Nodes * cfg.GPUs, Problems: []string{}}}
	err = s.play(ctx)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return s.end(err)
}

// story is one showing of the demo.
type story struct {
	cfg    Config
	p      *processes
	view   *view
	api    schedulerv1.SchedulerServiceClient
	jobs   *follower
	report Report

	digits  atomic.Uint64 // the training job, 0 before it is submitted
	small   []uint64
	started time.Time
}

// play is what happens, in order.
func (s *story) play(ctx context.Context) error {
	s.started = time.Now()
	// 1. A cluster: real processes, real Raft with real fsync, emulated GPUs.
	if err := s.startCluster(ctx); err != nil {
		return err
	}
	conn, err := dial(s.p.servers)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is lost
	s.api = schedulerv1.NewSchedulerServiceClient(conn)
	if err := s.waitForGPUs(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	watchCtx, stopWatch := context.WithCancel(gctx)
	s.jobs = newFollower(s.api, func(old, j *schedulerv1.Job) {
		if line := describe(old, j); line != "" {
			s.view.say("%s", line)
		}
	})
	g.Go(func() error { return s.jobs.run(watchCtx) })
	g.Go(func() error { return s.showProgress(watchCtx) })
	g.Go(func() error {
		defer stopWatch()
		return s.acts(gctx)
	})
	return g.Wait()
}

func (s *story) acts(ctx context.Context) error {
	// 2. Work: one gang on two nodes, and a queue of smaller jobs.
	if err := s.submitJobs(ctx); err != nil {
		return err
	}
	// 3. The leader dies. No worker notices.
	if err := s.killLeader(ctx); err != nil {
		return err
	}
	// 4. A whole node dies. The gang starts again from its checkpoint.
	if err := s.killNode(ctx); err != nil {
		return err
	}
	// 5. Everything finishes.
	return s.finish(ctx)
}

func (s *story) startCluster(ctx context.Context) error {
	s.view.title("A cluster on this machine: %d schedulers, %d agents, %d emulated GPUs", s.cfg.Servers, s.cfg.Nodes, s.cfg.Nodes*s.cfg.GPUs)
	for _, pr := range s.p.servers {
		if err := s.p.start(pr); err != nil {
			return err
		}
	}
	for _, pr := range s.p.agents {
		if err := s.p.start(pr); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// waitForGPUs waits until a leader answers and all agents have joined.
func (s *story) waitForGPUs(ctx context.Context) error {
	led := false
	return poll(ctx, 50*time.Millisecond, "all agents to join", func() (bool, error) {
		for _, pr := range append(append([]*process{}, s.p.servers...), s.p.agents...) {
			if pr.ended() {
				return false, fmt.Errorf("%s has ended:\n%s", pr.name, tail(pr.dir+".log"))
			}
		}
		if !led {
			leader, term, err := s.leader(ctx)
			if err != nil || leader == nil {
				return false, nil // not elected yet
			}
			led = true
			s.view.say("server %s leads (term %d)", leader.name, term)
		}
		callCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		nodes, err := s.api.ListNodes(callCtx, &schedulerv1.ListNodesRequest{})
		if err != nil {
			return false, nil // the leader is new
		}
		gpus := 0
		for _, n := range nodes.GetNodes() {
			gpus += len(n.GetGpus())
		}
		if gpus < s.report.GPUs {
			return false, nil
		}
		s.view.say("%d nodes with %d GPUs have joined", len(nodes.GetNodes()), gpus)
		return true, nil
	})
}

// end cleans up, judges, prints and writes the report.
func (s *story) end(err error) error {
	s.view.endLive()
	if err != nil {
		s.keepLogs()
	}
	if e := s.p.stopAll(); e != nil {
		err = errors.Join(err, fmt.Errorf("clean up: %w", e))
	}
	left, e := processesOf(s.p.dir)
	s.report.CleanedUp = e == nil && len(left) == 0
	s.report.Seconds = time.Since(s.started).Seconds()
	if err != nil {
		s.report.Problems = append(s.report.Problems, err.Error())
	} else {
		s.report.judge()
		err = s.report.err()
		s.printEnd()
	}
	if s.cfg.Report != "" {
		err = errors.Join(err, s.report.write(s.cfg.Report))
	}
	return err
}

// keepLogs saves the processes' logs where a person can read them.
func (s *story) keepLogs() {
	dir, err := os.MkdirTemp("", "gangline-demo-logs-")
	if err != nil {
		return
	}
	for _, pr := range append(append([]*process{}, s.p.servers...), s.p.agents...) {
		if b, err := os.ReadFile(pr.dir + ".log"); err == nil {
			_ = os.WriteFile(filepath.Join(dir, pr.name+".log"), b, 0o644) // best effort, on the way out
		}
	}
	s.view.say("the logs of all servers and agents are in %s", dir)
}

func (s *story) printEnd() {
	s.view.title("What happened")
	rows := [][]string{{"JOB", "NAME", "GPUS", "STATE", "LAUNCHES", "WAITED", "TOOK", "TEST ACCURACY"}}
	for _, j := range s.report.Jobs {
		acc := ""
		if j.TestAccuracy != nil {
			acc = fmt.Sprintf("%.4f", *j.TestAccuracy)
		}
		rows = append(rows, []string{
			fmt.Sprint(j.ID), j.Name, fmt.Sprint(j.GPUs), j.State, fmt.Sprint(j.Epochs),
			fmt.Sprintf("%.1fs", j.WaitS), fmt.Sprintf("%.1fs", j.JCTS), acc,
		})
	}
	s.view.table(rows)
	r := &s.report
	lines := []string{
		"",
		fmt.Sprintf("  leader killed: the next submit was accepted after %d ms; of %d workers %d were lost", r.FailoverMS, r.WorkersAtLeaderKill, r.WorkersLostToLeaderKill),
		fmt.Sprintf("  node killed:   digits ran again after %.1f s, from step %d; %d steps were repeated", float64(r.RecoveryMS)/1000, r.ResumedFromStep, r.StepsRepeated),
	}
	for _, p := range r.Problems {
		lines = append(lines, "  DID NOT HOLD: "+p)
	}
	if len(r.Problems) == 0 {
		lines = append(lines, "", fmt.Sprintf("Everything held. It took %.0f s, and nothing is left running.", r.Seconds))
	}
	s.view.lines(lines)
}
