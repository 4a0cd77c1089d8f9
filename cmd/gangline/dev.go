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
	var dir, gpus, listen string
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
			if err := absolute(&dir); err != nil {
				return err
			}
			return a.dev(cmd.Context(), dir, gpus, listen, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "state-dir", filepath.Join(stateHome(), "dev"), "directory for all state")
	f.StringVar(&gpus, "gpus", "fake:8xH100", "where GPUs come from: "+gpu.SpecForms)
	f.StringVar(&listen, "listen", "127.0.0.1:7070", "host:port of the API, on loopback")
	logs.register(f)
	_ = f.Lookup("log-level").Value.Set("warn") // a valid level
	f.Lookup("log-level").DefValue = "warn"
	return cmd
}

// dev runs the server and, once it serves, the agent.
func (a *app) dev(ctx context.Context, dir, gpus, listen string, log *slog.Logger) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	server := scheduler.DefaultConfig()
	server.ID, server.Listen, server.DataDir, server.Version, server.Logger = "dev", listen, filepath.Join(dir, "server"), version, log
	agent := nodeagent.DefaultConfig()
	agent.Name, agent.StateDir, agent.Servers, agent.GPUs = hostname(), filepath.Join(dir, "agent"), []string{listen}, gpus
	agent.Listen, agent.Version, agent.Logger = "127.0.0.1:0", version, log
	agent.CheckpointRoot = filepath.Join(dir, "checkpoints")
	if err := errors.Join(server.Validate(), agent.Validate()); err != nil {
		return &exitError{exitUsage, err}
	}
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	server.Ready = func(api, metrics string) {
		fmt.Fprintf(a.out, "Gangline runs here until you interrupt it. State is kept in %s.\n\n", dir)
		fmt.Fprintf(a.out, "  API            %s\n  server metrics http://%s/metrics\n  agent metrics  http://%s/metrics\n  GPUs           %s\n\n", api, metrics, agent.MetricsListen, gpus)
		hint := ""
		if listen != "127.0.0.1:7070" {
			hint = "export GANGLINE_SERVER=" + listen + "\n  "
		}
		fmt.Fprintf(a.out, "In another terminal:\n  %sgangline nodes\n  %sgangline run --gpus 2 -- sh -c 'echo rank $RANK of $WORLD_SIZE'\n", hint, "")
		close(ready)
	}
	g.Go(func() error { return scheduler.Run(ctx, server) })
	g.Go(func() error {
		select {
		case <-ready:
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
