package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/nodeagent"
	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/scheduler"
)

func (a *app) devCmd() *cobra.Command {
	cfg := devConfig{}
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster in one process: a scheduler and an agent, for a laptop or one GPU machine",
		Long: `Run a scheduler and an agent in one process, on loopback only. State is kept in
--state-dir: stop it and start it again, and jobs, logs and running workers are
still there.`,
		Example: `  gangline dev
  gangline dev --gpus auto      # the machine's own GPUs`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logs.logger(a.err)
			if err != nil {
				return err
			}
			if err := absolute(&cfg.dir); err != nil {
				return err
			}
			cfg.log = log
			return a.dev(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.dir, "state-dir", filepath.Join(stateHome(), "dev"), "directory for all state")
	f.StringVar(&cfg.gpus, "gpus", "fake:8xH100", "where GPUs come from: "+gpu.SpecForms)
	f.StringVar(&cfg.listen, "listen", "127.0.0.1:7070", "host:port of the API, on loopback; port 0: any")
	f.StringVar(&cfg.metrics, "metrics-listen", "127.0.0.1:7071", `host:port of the server's /metrics ("" for none)`)
	f.StringVar(&cfg.agentMetrics, "agent-metrics-listen", "127.0.0.1:7412", `host:port of the agent's /metrics ("" for none)`)
	logs.register(f)
	_ = f.Lookup("log-level").Value.Set("warn") // a valid level
	f.Lookup("log-level").DefValue = "warn"
	return cmd
}

type devConfig struct {
	dir, gpus                     string
	listen, metrics, agentMetrics string
	log                           *slog.Logger
}

// dev runs the server and, once it serves, the agent.
func (a *app) dev(ctx context.Context, cfg devConfig) error {
	server := scheduler.DefaultConfig()
	server.ID, server.Listen, server.MetricsListen = "dev", cfg.listen, cfg.metrics
	server.DataDir, server.Version, server.Logger = filepath.Join(cfg.dir, "server"), version, cfg.log
	agent := nodeagent.DefaultConfig()
	agent.Name, agent.StateDir, agent.Servers, agent.GPUs = hostname(), filepath.Join(cfg.dir, "agent"), []string{cfg.listen}, cfg.gpus
	agent.Listen, agent.MetricsListen, agent.Version, agent.Logger = "127.0.0.1:0", cfg.agentMetrics, version, cfg.log
	agent.CheckpointRoot = filepath.Join(cfg.dir, "checkpoints")
	if err := errors.Join(server.Validate(), agent.Validate()); err != nil {
		return &exitError{exitUsage, err}
	}
	if !loopbackListen(cfg.listen) {
		return usage("--listen %s can be reached from other machines: dev serves this machine alone; see \"gangline server --help\" for a cluster", cfg.listen)
	}
	if err := os.MkdirAll(cfg.dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan string, 1)
	server.Ready = func(api, metrics string) {
		a.welcome(cfg, api, metrics)
		ready <- api
	}
	g.Go(func() error { return scheduler.Run(ctx, server) })
	g.Go(func() error {
		select {
		case api := <-ready:
			agent.Servers = []string{api}
			return nodeagent.Run(ctx, agent)
		case <-ctx.Done():
			return nil
		}
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if err == nil {
		fmt.Fprintln(a.out, "stopped; running workers go on, and are found again by the next \"gangline dev\"")
	}
	return err
}

// welcome tells a person where things are and what to try.
func (a *app) welcome(cfg devConfig, api, metrics string) {
	fmt.Fprintf(a.out, "Gangline runs here until you interrupt it. State is kept in %s.\n\n  API            %s\n", cfg.dir, api)
	if metrics != "" {
		fmt.Fprintf(a.out, "  status page    http://%s/\n  server metrics http://%s/metrics\n", metrics, metrics)
	}
	if cfg.agentMetrics != "" {
		fmt.Fprintf(a.out, "  agent metrics  http://%s/metrics\n", cfg.agentMetrics)
	}
	hint := ""
	if api != "127.0.0.1:7070" {
		hint = "export GANGLINE_SERVER=" + api + "\n  "
	}
	fmt.Fprintf(a.out, "  GPUs           %s\n\nIn another terminal:\n  %sgangline nodes\n  gangline run --gpus 2 -- sh -c 'echo rank $RANK of $WORLD_SIZE'\n", cfg.gpus, hint)
}
