package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/scheduler"
	"github.com/gangline/gangline/scheduler/discovery"
	"github.com/gangline/gangline/scheduler/replica"
)

func (a *app) serverCmd() *cobra.Command {
	cfg := scheduler.DefaultConfig()
	var peers []string
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a scheduler server: 1, 3 or 5 of them make a cluster",
		Long: `Run a scheduler server. Servers agree by Raft: with 3 one may fail, with 5 two.
Give the same --peers list to each, and each its own --id and --data-dir.

Every setting is a flag, a variable such as GANGLINE_DATA_DIR, or a line of
the file of --config; flags win over variables, variables over the file.`,
		Example: `  gangline server --data-dir /var/lib/gangline
  gangline server --id a --listen 10.0.0.1:7070 --peers a=10.0.0.1:7070,b=10.0.0.2:7070,c=10.0.0.3:7070 \
      --data-dir /var/lib/gangline --tls-ca ca.pem --tls-cert a.pem --tls-key a.key`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if done, err := printConfig(cmd); done {
				return err
			}
			var err error
			if cfg.Servers, err = parsePeers(peers); err != nil {
				return err
			}
			if cfg.ServerTLS, cfg.ClientTLS, err = a.tls.loadServer(); err != nil {
				return err
			}
			if cfg.Logger, err = logs.logger(a.err); err != nil {
				return err
			}
			cfg.Version = version
			if err := cfg.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			return scheduler.Run(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.ID, "id", cfg.ID, "this server's id, one of --peers")
	f.StringVar(&cfg.Listen, "listen", cfg.Listen, "host:port for the API, agents and Raft")
	f.StringSliceVar(&peers, "peers", nil, "all servers as ID=HOST:PORT, the same list on each (default: this one alone)")
	f.StringVar(&cfg.DataDir, "data-dir", filepath.Join(stateHome(), "server"), "directory for the log and snapshots")
	f.StringVar(&cfg.MetricsListen, "metrics-listen", cfg.MetricsListen, `host:port for /metrics and /healthz ("" for none)`)
	f.DurationVar(&cfg.Lease, "lease", cfg.Lease, "how long a silent node is believed alive")
	f.DurationVar(&cfg.Control.LaunchTimeout, "launch-timeout", cfg.Control.LaunchTimeout, "how long a job may take to start all its workers")
	f.IntVar(&cfg.Control.KeepFinal, "keep-final", cfg.Control.KeepFinal, "how many ended jobs are remembered at least; up to 256 more for a while")
	f.BoolVar(&cfg.Insecure, "insecure", false, "serve plain text on an address that other machines reach")
	logs.register(f)
	configFlags(cmd)
	return cmd
}

// parsePeers reads the list of servers.
func parsePeers(peers []string) ([]replica.Server, error) {
	list, err := discovery.Parse(peers)
	if err != nil {
		return nil, usage("--peers: %w", err)
	}
	var out []replica.Server
	for _, s := range list {
		out = append(out, replica.Server(s))
	}
	return out, nil
}

// stateHome is where state lies that is not the machine's: $XDG_STATE_HOME/gangline.
func stateHome() string {
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "gangline")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "gangline")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("gangline-%d", os.Getuid()))
}

func loopbackListen(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && scheduler.Loopback(host)
}
