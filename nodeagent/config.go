package nodeagent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/gangline/gangline/checkpoint/remote"
	"github.com/gangline/gangline/nodeagent/gpu"
)

const (
	// maxName is the longest node name that the scheduler takes.
	maxName = 256
	// maxLabels bounds what each Hello carries of labels, and of taints; maxLabelBytes each key with its value.
	maxLabels     = 64
	maxLabelBytes = 256
)

// Labels by which the scheduler's default policy knows where a node stands.
const (
	LabelRack  = "topology.gangline.dev/rack"
	LabelBlock = "topology.gangline.dev/block"
)

// Config is all that an agent needs to know. DefaultConfig fills in what most nodes want.
type Config struct {
	// Name is the node's name, unique in the cluster. Default: the host name.
	Name string
	// StateDir keeps identity, workers and logs; it must survive restarts and lie on a local disk. Required.
	StateDir string
	// Servers are the schedulers' addresses, host:port; any of them names the leader. Required.
	Servers []string
	// Listen is where the agent serves logs, host:port; port 0 picks one. Default 0.0.0.0:7411.
	Listen string
	// AdvertiseHost is the name or address at which schedulers and workers of other nodes reach this node. Default:
	// the host of Listen, or Name if that is a wildcard.
	AdvertiseHost string
	// MetricsListen serves /metrics; "" serves none. Default 127.0.0.1:7412.
	MetricsListen string
	// GPUs says where GPUs come from; see gpu.SpecForms. Default "auto".
	GPUs string
	// CheckpointRoot is the folder, shared by all nodes, in which each job has its folder job-ID. Default:
	// StateDir/checkpoints, which only jobs on one node can use.
	CheckpointRoot string
	// CheckpointLocal is a directory on the node's own disk, where jobs write checkpoints first; the agent copies them to CheckpointRoot, and keeps
	// copies of another node's there until they are. Default: none.
	CheckpointLocal string
	// CheckpointLocalBytes bounds it. Default 256 GiB. Three times what the jobs of the node save at once is right; with less than two times, saves
	// go to CheckpointRoot directly, now and then or always.
	CheckpointLocalBytes int64
	// CheckpointDrainRate bounds the copying to CheckpointRoot, in bytes a second; 0: as fast as it goes.
	CheckpointDrainRate int64
	// CheckpointRemote is the object store to which checkpoints are copied of jobs that ask for it, such as s3://bucket/prefix; keys come from where AWS's
	// own tools look. Default: none.
	CheckpointRemote string
	// CheckpointEndpoint is the URL of its server. Default: AWS_ENDPOINT_URL, else Amazon's.
	CheckpointEndpoint string
	// Labels describe the node to the scheduler, such as topology.gangline.dev/rack=r12. At most 64, each of 256 bytes.
	Labels map[string]string
	// Taints keep jobs off the node that do not tolerate each of them. Bounds as of Labels.
	Taints map[string]string
	// CPUMilli is the CPU to offer, in thousandths; 0: all that the process may use.
	CPUMilli int64
	// MemoryBytes is the memory to offer; 0: all that the machine, or the agent's cgroup, has.
	MemoryBytes int64
	// Supervisor is the command that runs worker.Supervise on the directory appended to it. Default: this very
	// binary with the verb supervise.
	Supervisor []string
	// GPUProbe is the command that runs nvml.ProbeMain. Default: this very binary with the verb gpu-probe.
	GPUProbe []string
	// LogKeepFor is how long output of finished workers stays. Default 7 days. Too short: nobody can find out why
	// last night's job failed.
	LogKeepFor time.Duration
	// LogKeepBytes bounds the output of finished workers on disk, oldest first. Default 10 GiB.
	LogKeepBytes int64
	// MaxLogBytes is the size of one log segment of a worker's stream; see worker.Spec. Default 64 MiB.
	MaxLogBytes int64
	// TLS secures both the stream to the schedulers and the agent's own service. Zero: plain text.
	TLS TLS
	// Version is the agent's release, told to the scheduler.
	Version string
	// Logger takes the agent's events; nil discards them.
	Logger *slog.Logger
	// Clock gives the wall clock that is shown to people and to the scheduler. No duration is taken from it, so a
	// clock that is wrong by an hour does no harm. Default time.Now.
	Clock func() time.Time

	bucket remote.Bucket // in the place of CheckpointRemote's, for tests
}

// TLS names PEM files. With a CertFile the agent serves TLS and shows the certificate to schedulers; with a CAFile it
// checks schedulers by it, and asks callers of its own service for a certificate signed by it.
type TLS struct {
	CertFile, KeyFile, CAFile string
}

// Enabled tells whether any file is named.
func (t TLS) Enabled() bool { return t.CertFile != "" || t.KeyFile != "" || t.CAFile != "" }

// DefaultConfig returns the configuration of an ordinary node; StateDir and Servers are left to the caller.
func DefaultConfig() Config {
	name, err := os.Hostname()
	if err != nil {
		name = "" // Validate asks for one
	}
	return Config{
		Name:          name,
		Listen:        "0.0.0.0:7411",
		MetricsListen: "127.0.0.1:7412",
		GPUs:          "auto",
		Supervisor:    []string{"/proc/self/exe", "supervise"},
		LogKeepFor:    7 * 24 * time.Hour,
		LogKeepBytes:  10 << 30,
		MaxLogBytes:   64 << 20,

		CheckpointLocalBytes: 256 << 30,

		Version: "dev",
		Clock:   time.Now,
	}
}

// Validate returns everything that is wrong with the configuration, joined; nil if nothing is.
func (c Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Name == "" || len(c.Name) > maxName || strings.ContainsAny(c.Name, " \t\n/") {
		wrong("name %q: want 1 to %d characters without spaces or slashes", c.Name, maxName)
	}
	if !filepath.IsAbs(c.StateDir) {
		wrong("state dir %q: want an absolute path on a local disk", c.StateDir)
	}
	if len(c.Servers) == 0 {
		wrong("servers: name at least one scheduler as host:port")
	}
	for _, s := range c.Servers {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			wrong("server %q: want host:port", s)
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		wrong("listen %q: want host:port: %w", c.Listen, err)
	}
	if c.MetricsListen != "" {
		if _, _, err := net.SplitHostPort(c.MetricsListen); err != nil {
			wrong("metrics listen %q: want host:port or nothing: %w", c.MetricsListen, err)
		}
	}
	if _, err := gpu.ParseSpec(c.GPUs); err != nil {
		errs = append(errs, err)
	}
	if c.CheckpointRoot != "" && !filepath.IsAbs(c.CheckpointRoot) {
		wrong("checkpoint root %q: want an absolute path on storage that all nodes share", c.CheckpointRoot)
	}
	if c.CheckpointRemote != "" {
		if _, err := remote.OpenS3(c.CheckpointRemote, c.CheckpointEndpoint); err != nil {
			wrong("checkpoint remote: %w", err)
		}
	}
	if c.CheckpointLocal != "" && !filepath.IsAbs(c.CheckpointLocal) {
		wrong("checkpoint local %q: want an absolute path on a disk of the node", c.CheckpointLocal)
	}
	if c.CheckpointLocalBytes <= 0 || c.CheckpointDrainRate < 0 {
		wrong("local checkpoints: want a bound above 0 and a rate of at least 0, got %d bytes and %d bytes a second", c.CheckpointLocalBytes, c.CheckpointDrainRate)
	}
	errs = append(errs, checkPairs("label", c.Labels), checkPairs("taint", c.Taints))
	if c.CPUMilli < 0 || c.MemoryBytes < 0 {
		wrong("cpu and memory must not be negative, got %d and %d", c.CPUMilli, c.MemoryBytes)
	}
	if len(c.Supervisor) == 0 {
		wrong("supervisor: name the command that supervises a worker")
	}
	if c.LogKeepFor <= 0 || c.LogKeepBytes <= 0 || c.MaxLogBytes <= 0 {
		wrong("log limits must be positive, got %v, %d and %d bytes", c.LogKeepFor, c.LogKeepBytes, c.MaxLogBytes)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		wrong("tls: certificate and key belong together, got %q and %q", c.TLS.CertFile, c.TLS.KeyFile)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("agent configuration: %w", err)
	}
	return nil
}

// checkPairs refuses labels or taints that the scheduler would refuse.
func checkPairs(what string, pairs map[string]string) error {
	var errs []error
	if len(pairs) > maxLabels {
		errs = append(errs, fmt.Errorf("%ss: %d given, at most %d are allowed", what, len(pairs), maxLabels))
	}
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		value := pairs[key]
		if key == "" || len(key)+len(value) > maxLabelBytes || strings.ContainsFunc(key+value, unicode.IsControl) {
			errs = append(errs, fmt.Errorf("%s %.64q=%.64q: want a key, at most %d bytes together and no control characters", what, key, value, maxLabelBytes))
		}
	}
	return errors.Join(errs...)
}

// withDerived fills in what follows from other fields.
func (c Config) withDerived() Config {
	if c.AdvertiseHost == "" {
		c.AdvertiseHost = c.Name
		if host, _, err := net.SplitHostPort(c.Listen); err == nil && host != "" {
			if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
				c.AdvertiseHost = host
			}
		}
	}
	if c.CheckpointRoot == "" {
		c.CheckpointRoot = filepath.Join(c.StateDir, "checkpoints")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}
