package replay

import "github.com/gangline/gangline/scheduler/cluster"

// cause is what a GPU's time was spent on while a job held it.
type cause uint8

const (
	useful        cause = iota // work that counted in the end
	startingUp                 // a job's first epoch, until its first step
	restarting                 // the same of every later epoch
	repeated                   // work that was lost with its epoch, and had to be done again
	checkpointing              // training stood still for a checkpoint
	hung                       // a rank was gone, and the others waited to be told
	stopping                   // from the order to stop until the processes were gone
	ending                     // from the end of the work until the scheduler knew it
	causes
)

// LostGPU is GPU time that jobs held and that was no work that counted, by cause, in GPU-seconds.
type LostGPU struct {
	StartUp    float64 `json:"start_up"`   // first epochs, until their first step
	Restart    float64 `json:"restart"`    // the same of later epochs
	Repeated   float64 `json:"repeated"`   // work since the last checkpoint, lost with its epoch
	Checkpoint float64 `json:"checkpoint"` // training stood still for one
	Hung       float64 `json:"hung"`       // a rank was gone, the others waited
	Stopping   float64 `json:"stopping"`   // from the order to stop until the processes were gone
	Ending     float64 `json:"ending"`     // from the end of the work until the scheduler knew
}

// Failures count what struck, and what it did.
type Failures struct {
	Nodes         int `json:"node_failures"` // machines that died, those of racks included
	Racks         int `json:"rack_failures"`
	GPUs          int `json:"gpu_failures"`
	Workers       int `json:"worker_failures"` // processes that failed on sound hardware
	AgentsAway    int `json:"agents_away"`
	LeaderChanges int `json:"leader_changes"`
	ReportsLost   int `json:"reports_lost"`

	NodesLost int `json:"nodes_declared_lost"` // their lease ran out
	Hit       int `json:"epochs_broken"`       // epochs of jobs that a failure ended
	Requeues  int `json:"requeues"`            // epochs that ended by no fault of the job, preemptions not counted
	Retries   int `json:"retries"`             // epochs that ended by a worker's failure, and were not the last
	Resizes   int `json:"resizes"`             // epochs that ended because an elastic job was given more or fewer GPUs

	DownGPU float64 `json:"down_gpu_s"` // GPU time of machines that were down and GPUs that were out of use
}

// bill books a part of an epoch's GPU time.
func (m *meter) bill(c cause, milliGPUs int64, s span) {
	gpus := float64(milliGPUs) / milli
	m.held += float64(gpus * s.within(*m.window)) // rounded before it is added, on every machine alike
	m.byCause[c] += float64(gpus * s.within(s))
	if c != useful {
		m.wasted += float64(gpus * s.within(*m.window))
		m.lost += float64(gpus * s.within(s))
	}
}

// lostGPU is the lost part of what was billed.
func (m *meter) lostGPU() *LostGPU {
	b := &m.byCause
	return &LostGPU{
		StartUp: b[startingUp], Restart: b[restarting], Repeated: b[repeated], Checkpoint: b[checkpointing],
		Hung: b[hung], Stopping: b[stopping], Ending: b[ending],
	}
}

// bill books a gang's GPU time from where its bill ends until a time.
func (r *reality) bill(g *gang, c cause, until cluster.Time) {
	if g.settled || until <= g.billed {
		return
	}
	all := span{g.billed, until}
	r.w.meter.bill(c, g.milli, all)
	g.meter.bill(c, g.milli, all)
	g.billed = until
}

func (f *Failures) add(o *Failures) {
	f.Nodes += o.Nodes
	f.Racks += o.Racks
	f.GPUs += o.GPUs
	f.Workers += o.Workers
	f.AgentsAway += o.AgentsAway
	f.LeaderChanges += o.LeaderChanges
	f.ReportsLost += o.ReportsLost
	f.NodesLost += o.NodesLost
	f.Hit += o.Hit
	f.Requeues += o.Requeues
	f.Retries += o.Retries
	f.Resizes += o.Resizes
	f.DownGPU += o.DownGPU
}

// conditionRows writes what conditions did, if there were any.
func (r *Report) conditionRows(row func(name, format string, args ...any)) {
	f, l := r.Failures, r.LostGPU
	if f == nil || l == nil {
		return
	}
	share := func(x float64) float64 { return 100 * x / max(r.Lost, 1) }
	row("lost GPU time", "%.0f %% start-up, %.0f %% restarts, %.0f %% repeated work, %.0f %% checkpoints, %.0f %% hung, %.0f %% stopping, %.0f %% ending",
		share(l.StartUp), share(l.Restart), share(l.Repeated), share(l.Checkpoint), share(l.Hung), share(l.Stopping), share(l.Ending))
	row("failures", "%d machines (%d racks), %d GPUs, %d processes, %d agents away, %d leaders, %d reports; %.0f GPU s out of use",
		f.Nodes, f.Racks, f.GPUs, f.Workers, f.AgentsAway, f.LeaderChanges, f.ReportsLost, f.DownGPU)
	row("consequences", "%d epochs broken, %d nodes declared lost; %d requeues, %d retries, %d resizes; %d jobs failed",
		f.Hit, f.NodesLost, f.Requeues, f.Retries, f.Resizes, r.Failed)
}
