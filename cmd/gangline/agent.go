package main

import (
	"maps"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gangline/gangline/nodeagent"
	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

func (a *app) agentCmd() *cobra.Command {
	cfg := nodeagent.DefaultConfig()
	cfg.Name = hostname()
	cfg.Listen = "127.0.0.1:7411"
	var cpus float64
	var memory int64
	var rack, block, localSize, drainRate string
	var insecure bool
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of a node: it offers the node's GPUs and runs the workers",
		Long: `Run the agent of a node. It finds the GPUs, connects to the scheduler's leader
and runs what the leader assigns to this node, each worker under a supervisor
of its own: stopping, restarting or upgrading the agent ends no worker.

Every setting is a flag, a variable such as GANGLINE_STATE_DIR, or a line of
the file of --config; flags win over variables, variables over the file.`,
		Example: `  gangline agent --server 10.0.0.1:7070,10.0.0.2:7070 --checkpoint-root /mnt/shared/checkpoints
  gangline agent --rack r12 --block b3 --taint team=vision
  gangline agent --gpus fake:8xH100     # emulated GPUs, to try things out`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if done, err := printConfig(cmd); done {
				return err
			}
			cfg.Servers, cfg.Version, cfg.CPUMilli, cfg.MemoryBytes = a.servers, version, int64(cpus*1000), memory
			if _, _, err := a.tls.loadServer(); err != nil {
				return err // without a certificate the node's logs would be served in plain text
			}
			cfg.TLS = nodeagent.TLS{CertFile: a.tls.cert, KeyFile: a.tls.key, CAFile: a.tls.ca}
			var err error
			if cfg.Logger, err = logs.logger(a.err); err != nil {
				return err
			}
			if cfg.Labels, err = withPlace(cfg.Labels, rack, block); err != nil {
				return err
			}
			if err := absolute(&cfg.StateDir, &cfg.CheckpointRoot, &cfg.CheckpointLocal); err != nil {
				return err
			}
			if err := localFlags(&cfg, localSize, drainRate); err != nil {
				return err
			}
			if err := cfg.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			if !insecure && !cfg.TLS.Enabled() && !loopbackListen(cfg.Listen) {
				return usage("--listen %s can be reached from other machines and has no TLS: give --tls-cert, --tls-key and --tls-ca, or accept plain text for everyone with --insecure", cfg.Listen)
			}
			return nodeagent.Run(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Name, "name", cfg.Name, "the node's name, unique in the cluster")
	f.StringVar(&cfg.StateDir, "state-dir", filepath.Join(stateHome(), "agent"), "directory for identity, workers and logs, on a local disk")
	f.StringVar(&cfg.Listen, "listen", cfg.Listen, "host:port at which schedulers fetch logs")
	f.StringVar(&cfg.AdvertiseHost, "advertise-host", "", "name or address at which others reach this node (default: the host of --listen, or the name)")
	f.StringVar(&cfg.MetricsListen, "metrics-listen", cfg.MetricsListen, `host:port for /metrics ("" for none)`)
	f.StringVar(&cfg.GPUs, "gpus", cfg.GPUs, "where GPUs come from: "+gpu.SpecForms)
	checkpointFlags(f, &cfg, &localSize, &drainRate)
	f.StringToStringVar(&cfg.Labels, "label", nil, "labels of the node, such as disk=nvme, that jobs can ask for")
	f.StringToStringVar(&cfg.Taints, "taint", nil, "taints of the node, such as team=vision: jobs that do not tolerate each of them stay away")
	f.StringVar(&rack, "rack", "", "the rack in which the node stands: short for --label "+nodeagent.LabelRack+"=RACK")
	f.StringVar(&block, "block", "", "the block of racks in which the node stands: short for --label "+nodeagent.LabelBlock+"=BLOCK")
	f.Float64Var(&cpus, "cpus", 0, "CPUs to offer (0: all)")
	f.Int64Var(&memory, "memory-bytes", 0, "memory to offer, in bytes (0: all)")
	f.DurationVar(&cfg.LogKeepFor, "log-keep-for", cfg.LogKeepFor, "how long output of ended workers stays")
	f.Int64Var(&cfg.LogKeepBytes, "log-keep-bytes", cfg.LogKeepBytes, "most bytes of output of ended workers")
	f.BoolVar(&insecure, "insecure", false, "serve plain text on an address that other machines reach")
	logs.register(f)
	configFlags(cmd)
	return cmd
}

// checkpointFlags are where checkpoints go. size and rate are of those on the node's own disk, for localFlags.
func checkpointFlags(f *pflag.FlagSet, cfg *nodeagent.Config, size, rate *string) {
	f.StringVar(&cfg.CheckpointRoot, "checkpoint-root", "", "directory for checkpoints, shared by all nodes (default: in --state-dir, which serves one node only)")
	f.StringVar(&cfg.CheckpointLocal, "checkpoint-local", "", "directory on the node's own disk, such as NVMe, where jobs save first; the agent copies checkpoints to --checkpoint-root in the background, and one to another node's agent (default: jobs save on --checkpoint-root)")
	f.StringVar(size, "checkpoint-local-size", "256GiB", "most that may lie there: three times what the node's jobs save at once is right")
	f.StringVar(rate, "checkpoint-drain-rate", "", "most that is copied from there in a second, such as 500MB (default: as fast as it goes)")
	f.StringVar(&cfg.CheckpointRemote, "checkpoint-remote", "", "object store to which checkpoints are copied of jobs that ask for it, such as s3://bucket/prefix (default: none)")
	f.StringVar(&cfg.CheckpointEndpoint, "checkpoint-endpoint", "", "URL of its server (default: AWS_ENDPOINT_URL, else Amazon's)")
}

// localFlags reads the sizes of local checkpoints.
func localFlags(cfg *nodeagent.Config, size, rate string) (err error) {
	if cfg.CheckpointLocalBytes, err = yamlfile.ParseBytes(size); err != nil {
		return usage("--checkpoint-local-size: %v", err)
	}
	if cfg.CheckpointDrainRate = 0; rate != "" {
		if cfg.CheckpointDrainRate, err = yamlfile.ParseBytes(rate); err != nil {
			return usage("--checkpoint-drain-rate: %v", err)
		}
	}
	return nil
}

// withPlace returns labels with those of the node's rack and block; empty ones add none.
func withPlace(labels map[string]string, rack, block string) (map[string]string, error) {
	out := maps.Clone(labels)
	for _, p := range []struct{ flag, label, value string }{
		{"rack", nodeagent.LabelRack, rack}, {"block", nodeagent.LabelBlock, block},
	} {
		if p.value == "" {
			continue
		}
		if old, given := labels[p.label]; given && old != p.value {
			return nil, usage("--%s %s and --label %s=%s contradict each other: give one of them", p.flag, p.value, p.label, old)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[p.label] = p.value
	}
	return out, nil
}

// absolute makes paths absolute; empty ones stay empty.
func absolute(paths ...*string) error {
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}
