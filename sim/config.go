package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/gangline/gangline/scheduler/control"
)

// Config is a run. Equal configs give equal reports.
type Config struct {
	Seed        uint64
	Nodes       int // 1..MaxNodes. From 3 on, every third has GPUs of a second type
	GPUsPerNode int // 1..16
	Jobs        int // 0..MaxJobs, besides duplicates of their submissions

	// Horizon is the time in which jobs arrive and faults strike; then everything is repaired and the queue drains.
	// Default 4 h.
	Horizon time.Duration
	// Load is the GPU time that the jobs ask for, as a part of what the cluster has within Horizon. Default 0.8.
	Load float64

	// Varied lets users submit jobs of every kind (preemptible, elastic, arrays, shares of a GPU, bound to a rack), and
	// admins set policies with queues and quotas and drain nodes.
	Varied bool
	Mixed  bool  // nodes are of several sizes, up to GPUsPerNode, and types
	Faults bool  // whether any fault strikes
	Rates  Rates // how often, if so

	Servers        int           // with a copy of the state each; default 3
	Lease          time.Duration // of a silent node. Default 6 s, as the servers'
	StartDelay     time.Duration // longest start-up of a worker; the shortest is a tenth. Default 20 s
	CheckpointEach time.Duration // of training; what came after the last one is lost with its epoch. Default 5 min
	Control        control.Config

	// CheckEvery is how many commands may pass between two full checks of the state, whose cost grows with it; the
	// cheap checks follow every command. 0: after every command while the state is small, then less often.
	CheckEvery int
}

// Rates say how often each kind of fault strikes, and how bad it is.
type Rates struct {
	// Per node and hour.
	NodeFailures    float64 // the machine dies with all its workers, and comes back with a new boot id
	AgentRestarts   float64 // the agent's process is restarted; workers live on
	Partitions      float64 // the node's agent cannot reach the servers; workers live on
	SupervisorsLost float64 // one worker's supervisor vanishes, and the worker with it
	GPUFailures     float64 // a GPU of the node takes no new jobs for a while
	Drains          float64 // an admin drains the node for a while; in varied worlds
	// Per hour.
	LeaderChanges float64
	RackFailures  float64 // all nodes of a rack die at once
	PolicyChanges float64 // in varied worlds with an even seed
	// For each message or event, 0..1.
	ReportLost      float64 // an agent's report gets lost
	ReportRepeated  float64 // a ReportWorkers command comes a second time, up to RepeatDelay later
	OrderRepeated   float64 // an agent gets an order a second time, up to RepeatDelay later
	SubmitRepeated  float64 // a client sends an acknowledged submission again
	WorkerFailure   float64 // a job has a worker that exits with 1 somewhere on its way, once
	Reimaged        float64 // a failed node comes back with an empty disk: a new id under its old name
	Stubborn        float64 // a worker ignores SIGTERM until it is killed
	Cancelled       float64 // a client cancels its job at a random time
	RepairTime      time.Duration
	PartitionTime   time.Duration // longest
	RepeatDelay     time.Duration // longest
	LeaderClockSkew time.Duration // a server's clock is wrong by up to this, either way
}

// Bounds of a config: a typing error must not take the machine's memory.
const (
	MaxNodes = 20_000
	MaxJobs  = 2_000_000
)

// DefaultConfig returns a small cluster with faults: 8 nodes of 8 GPUs and 200 jobs within 4 h.
func DefaultConfig() Config {
	return Config{
		Seed: 1, Nodes: 8, GPUsPerNode: 8, Jobs: 200, Horizon: 4 * time.Hour, Load: 0.8, Varied: true,
		Faults: true, Rates: DefaultRates(),
		Servers: 3, Lease: 6 * time.Second, StartDelay: 20 * time.Second, CheckpointEach: 5 * time.Minute,
		Control: control.DefaultConfig(),
	}
}

// DefaultRates returns faults far more often than any cluster has them, since the aim is to find bugs: in 4 h on 8
// nodes about 8 node failures, 16 partitions and 8 leader changes.
func DefaultRates() Rates {
	return Rates{
		NodeFailures: 0.25, AgentRestarts: 0.5, Partitions: 0.5, SupervisorsLost: 0.25, GPUFailures: 0.25,
		LeaderChanges: 2, RackFailures: 0.1, Drains: 0.25, PolicyChanges: 1,
		ReportLost: 0.05, ReportRepeated: 0.05, OrderRepeated: 0.05, SubmitRepeated: 0.1,
		WorkerFailure: 0.15, Reimaged: 0.2, Stubborn: 0.1, Cancelled: 0.05,
		RepairTime: 20 * time.Minute, PartitionTime: 5 * time.Minute, RepeatDelay: time.Minute,
		LeaderClockSkew: 2 * time.Second,
	}
}

// Validate returns every problem of the config at once, joined, or nil.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	between := func(name string, v, low, high int) {
		if v < low || v > high {
			bad("%s: %d is not in %d..%d", name, v, low, high)
		}
	}
	between("nodes", c.Nodes, 1, MaxNodes)
	between("gpus-per-node", c.GPUsPerNode, 1, 16)
	between("jobs", c.Jobs, 0, MaxJobs)
	between("servers", c.Servers, 1, 9)
	if c.Horizon < time.Minute || c.Horizon > 365*24*time.Hour {
		bad("horizon: %s is not in 1m..8760h", c.Horizon)
	}
	if !(c.Load > 0 && c.Load <= 100) {
		bad("load: %g is not in 0..100", c.Load)
	}
	if c.Lease < 2*time.Second || c.StartDelay <= 0 || c.CheckpointEach < time.Second {
		bad("lease %s, start delay %s and checkpoint interval %s must be at least 2s, 1ns and 1s", c.Lease, c.StartDelay, c.CheckpointEach)
	}
	if c.CheckEvery < 0 {
		bad("check every: %d is negative", c.CheckEvery)
	}
	return errors.Join(errs...)
}

// Command is the command line that repeats the run, as far as flags can say it.
func (c *Config) Command() string {
	return fmt.Sprintf("gangline sim run --seed %d --nodes %d --gpus-per-node %d --jobs %d --faults=%t",
		c.Seed, c.Nodes, c.GPUsPerNode, c.Jobs, c.Faults)
}
