package replay

import (
	"errors"
	"fmt"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Conditions are what a recorded workload does not tell: what it costs to start, save and stop a job, and what breaks.
// A replay without them has a cluster that obeys in no time and never fails. The zero value costs nothing, and nothing
// breaks; [Preset] has others, [ParseConditions] reads a file.
type Conditions struct {
	Start      StartCosts
	Checkpoint CheckpointCosts
	Stop       StopCosts
	Elastic    Elasticity
	Retries    int // of every job, for workers that fail of themselves; lost nodes never count. 0..cluster.MaxRetries

	Nodes   FaultRate // a machine dies with all that runs on it, and comes back with its disk
	GPUs    FaultRate // a GPU fails with the workers that use it, and is out of use until it is repaired
	Workers FaultRate // for each GPU: the process that uses it fails; the hardware is well. No repair
	Racks   FaultRate // all machines of a rack die at once, and come back together
	Agents  FaultRate // an agent is away (restarted, or cut off) while its workers go on. Repair: how long it is away
	Leader  FaultRate // leadership is lost. Repair: how long nobody leads

	RackNodes int // nodes of a rack, in the order of the file, where nodes name none; 0: then they are in none

	Late  time.Duration // longest way of an agent's report; they come evenly within it
	Lost  float64       // part of the reports that get lost, 0..0.9
	Again time.Duration // after which an agent says again what was not heard
	Lease time.Duration // of a node whose agent is silent, as the servers'
	// Notice is how long the ranks of a gang need to see that one of them is gone; then they exit, too.
	Notice time.Duration
}

// StartCosts are the time from the decision to start a job to its first training step.
type StartCosts struct {
	Launch  time.Duration // mean until all processes run: the order's way, image, processes
	Warmup  time.Duration // mean from there to the first step: imports, rendezvous, loading, compiling
	Restart time.Duration // more warm-up in every later epoch: loading the checkpoint
	Spread  float64       // of both means, see FaultRate.Spread
}

// CheckpointCosts say how much of its work a job that ends early keeps.
type CheckpointCosts struct {
	Interval time.Duration // of training between two checkpoints; 0: only when it is warned; or Auto
	Cost     time.Duration // training stands still for so long
	Jobs     float64       // part of the jobs that write any and heed a warning, 0..1
}

// Auto is a CheckpointCosts.Interval: as often as loses least for a gang of its size under these conditions, by Daly's
// formula (see checkpoint.Interval) from what a checkpoint costs and how often something of the gang fails.
const Auto time.Duration = -1

// StopCosts are the handshake by which a job is stopped.
type StopCosts struct {
	Warn  time.Duration // from the warning to SIGTERM
	Grace time.Duration // from SIGTERM to SIGKILL
	Exit  time.Duration // from the end of the work, or from SIGTERM, until the processes are gone
}

// Elasticity makes a part of the jobs elastic, and says how fast they are with more or fewer GPUs.
type Elasticity struct {
	Jobs     float64 // part of the jobs of whole GPUs that are elastic, 0..1
	Min, Max float64 // of the GPUs that the trace has for a job: at least, at most; 0 < Min <= 1 <= Max <= 64
	// Curve are points of GPUs against speed, both as multiples of what the trace has for the job; (1, 1) is always one.
	// Between two points, and beyond the last ones, log speed is a straight line of log GPUs. Empty: speed is GPUs.
	Curve []CurvePoint
}

// CurvePoint says that a gang of so many times its GPUs is so many times as fast.
type CurvePoint struct{ GPUs, Speed float64 }

// FaultRate is how often a kind of fault strikes, and how long it lasts.
type FaultRate struct {
	PerDay float64       // of each thing that can fail, on average; Poisson. 0: never
	Repair time.Duration // mean
	// Spread of the repair: the standard deviation of its logarithm (it is lognormal), 0: it always takes the mean, or
	// Exponential.
	Spread float64
}

// Exponential is a spread: times are exponential instead of lognormal.
const Exponential = -1

// Bounds of conditions.
const (
	maxSpread = 4
	maxPerDay = 1e4
	maxRepair = 366 * 24 * time.Hour
	maxTimes  = 64 // of elastic GPUs and speeds
)

// Presets names the conditions that Preset knows.
func Presets() []string { return []string{"default", "llama3", "rsc", "costs", "stress"} }

// Preset returns named conditions:
//
//	costs    what start, checkpoint and stop cost; nothing fails
//	llama3   costs, and the failures of Meta's Llama 3 405B run by cause
//	rsc      costs, and the node failures of Meta's RSC-1
//	default  llama3, rack failures, and now and then another leader
//	stress   everything breaks far more often than anywhere, to find bugs
//
// The failure rates are published ones, see the constants. The costs are assumptions of ours: measure your own.
func Preset(name string) (*Conditions, bool) {
	c := costs()
	switch name {
	case "costs":
	case "llama3":
		c.hardware()
	case "default":
		c.hardware()
		c.Racks = FaultRate{PerDay: deanRacks, Repair: deanRackRepair, Spread: deanRackSpread}
		c.Leader = FaultRate{PerDay: 1.0 / 30, Repair: 1500 * time.Millisecond} // an upgrade a month: ours
	case "rsc":
		c.Nodes = FaultRate{PerDay: rscNodes, Repair: repairMean, Spread: 1}
	case "stress":
		c.stress()
	default:
		return nil, false
	}
	return &c, true
}

// Published figures.
const (
	// Llama 3 405B, 54 days on 16,384 H100 in 2,048 nodes, 419 unplanned interruptions (Grattafiori et al., The Llama 3
	// Herd of Models, arXiv:2407.21783, table 5). Of GPUs: faulty 148, HBM3 72, SRAM 19, system processor 17, silent data
	// corruption 6, thermal interface 6. Of hosts: maintenance 32, NIC 7, SSD 3, power supply 3, chassis 2, IO board 2,
	// CPU 2, memory 2. Else: software 54, network 35, NCCL watchdog 7, dependency 2.
	llamaGPUDays  = 16384 * 54
	llamaNodeDays = 2048 * 54
	llamaGPUs     = 268.0 / llamaGPUDays
	llamaHosts    = 53.0 / llamaNodeDays
	llamaWorkers  = 98.0 / llamaGPUDays
	// RSC-1, 16,384 A100: a mean time to failure of 1.8 h for a job of 16,384 GPUs, 2,048 nodes (Kokolis et al.,
	// Revisiting Reliability in Large-Scale Machine Learning Research Clusters, HPCA 2025, arXiv:2410.21680).
	rscNodes = 24 / 1.8 / 2048
	// 20 rack failures a year in a cluster of 1,800 servers, each of 40 to 80 machines that are back after 1 to 6 hours
	// (Dean, Designs, Lessons and Advice from Building Large Distributed Systems, LADIS 2009). 45 racks of 40; 1 and 6
	// hours are taken as the 5th and the 95th percentile of a lognormal.
	deanRacks      = 20.0 / 45 / 365
	deanRackSpread = 0.545
	deanRackRepair = 171 * time.Minute
	// The recovery time of a failed GPU node with which a study of 1,056 A100 and H100 plans its spares (Cui et al.,
	// Story of Two GPUs, SC 2025, arXiv:2503.11901). Its distribution is not published: lognormal with spread 1 is ours.
	repairMean = 132 * time.Minute
	// 8 to 256 GPUs at about 90 % efficiency (Goyal et al., Accurate, Large Minibatch SGD, arXiv:1706.02677).
	goyalGPUs, goyalSpeed = 32, 28.8
)

// costs are those of all presets. Assumptions of ours, but for the handshake, the lease and the curve.
func costs() Conditions {
	return Conditions{
		Start:      StartCosts{Launch: 10 * time.Second, Warmup: 50 * time.Second, Restart: 30 * time.Second, Spread: 0.5},
		Checkpoint: CheckpointCosts{Interval: 30 * time.Minute, Cost: 10 * time.Second, Jobs: 1},
		Stop:       StopCosts{Warn: cluster.DefaultWarn, Grace: cluster.DefaultGrace, Exit: time.Second},
		Elastic:    Elasticity{Min: 0.5, Max: 2, Curve: []CurvePoint{{1, 1}, {goyalGPUs, goyalSpeed}}},
		Retries:    cluster.MaxRetries, // what fails here is hardware, for which nobody should give a job up
		Late:       20 * time.Millisecond, Again: 5 * time.Second, Lease: 6 * time.Second, Notice: 2 * time.Second,
	}
}

func (c *Conditions) hardware() {
	c.Nodes = FaultRate{PerDay: llamaHosts, Repair: repairMean, Spread: 1}
	c.GPUs = FaultRate{PerDay: llamaGPUs, Repair: repairMean, Spread: 1}
	c.Workers = FaultRate{PerDay: llamaWorkers}
}

func (c *Conditions) stress() {
	c.Nodes = FaultRate{PerDay: 2, Repair: 20 * time.Minute, Spread: 1}
	c.GPUs = FaultRate{PerDay: 0.5, Repair: time.Hour, Spread: Exponential}
	c.Workers = FaultRate{PerDay: 0.5}
	c.Racks = FaultRate{PerDay: 1, Repair: 10 * time.Minute, Spread: 1}
	c.Agents = FaultRate{PerDay: 12, Repair: 10 * time.Second, Spread: 1.5}
	c.Leader = FaultRate{PerDay: 24, Repair: 3 * time.Second, Spread: Exponential}
	c.RackNodes = 4
	c.Late, c.Lost = 500*time.Millisecond, 0.1
	c.Elastic.Jobs = 0.3
	c.Checkpoint.Jobs = 0.9
}

// Validate returns every problem of the conditions at once, joined, or nil.
func (c *Conditions) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, f := range c.fields() {
		if err := f.check(); err != nil {
			errs = append(errs, err)
		}
	}
	if e := &c.Elastic; e.Jobs > 0 && !(e.Min > 0 && e.Min <= 1 && e.Max >= 1) {
		bad("elastic: min %g and max %g are multiples of the GPUs that a job has in the trace: 0 < min <= 1 <= max", e.Min, e.Max)
	}
	if c.Stop.Warn > cluster.MaxStopTime || c.Stop.Grace > cluster.MaxStopTime {
		bad("stop: warn %s and grace %s must each be at most %s", c.Stop.Warn, c.Stop.Grace, cluster.MaxStopTime)
	}
	for i, p := range c.Elastic.Curve {
		switch {
		case !(p.GPUs > 0 && p.GPUs <= maxTimes && p.Speed > 0 && p.Speed <= maxTimes):
			bad("elastic.curve: [%g, %g] is not [GPUs, speed], both multiples above 0 and at most %d", p.GPUs, p.Speed, maxTimes)
		case i > 0 && p.GPUs <= c.Elastic.Curve[i-1].GPUs:
			bad("elastic.curve: %g GPUs come after %g: list the points by GPUs", p.GPUs, c.Elastic.Curve[i-1].GPUs)
		case p.GPUs == 1 && p.Speed != 1:
			bad("elastic.curve: [1, %g]: with the GPUs of the trace a job has the trace's speed, [1, 1]", p.Speed)
		}
	}
	return errors.Join(errs...)
}
