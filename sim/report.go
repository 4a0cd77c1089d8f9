package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Report is what a run measured. It is a function of the Config alone: no wall time, no machine. Times are seconds of
// virtual time, and names are those of `gangline sim run --json`.
type Report struct {
	Seed      uint64 `json:"seed"`
	Nodes     int    `json:"nodes"`
	GPUs      int    `json:"gpus"`
	Jobs      int    `json:"jobs"`
	Finished  int    `json:"finished"` // succeeded, failed or cancelled
	Succeeded int    `json:"succeeded"`
	Failed    int    `json:"failed"`
	Cancelled int    `json:"cancelled"`
	Refused   int    `json:"refused"` // larger than the cluster

	AvgJCT   float64 `json:"avg_jct_s"` // from submission to success
	P50JCT   float64 `json:"p50_jct_s"`
	P90JCT   float64 `json:"p90_jct_s"`
	P99JCT   float64 `json:"p99_jct_s"`
	Makespan float64 `json:"makespan_s"` // from the beginning to the last job's end
	AvgWait  float64 `json:"avg_wait_s"` // from submission to the first start
	P50Wait  float64 `json:"p50_wait_s"`
	P99Wait  float64 `json:"p99_wait_s"`

	GPUAllocation float64 `json:"gpu_allocation"` // GPU time held by jobs, of the cluster's within the makespan
	GPUGoodput    float64 `json:"gpu_goodput"`    // GPU time of work of jobs that succeeded, likewise
	LostGPU       float64 `json:"lost_gpu_s"`     // GPU time of work that was not saved and had to be done again

	Epochs      int `json:"epochs"` // gangs started
	Preemptions int `json:"preemptions"`
	Requeues    int `json:"requeues"` // epochs that ended by no fault of the job
	Retries     int `json:"retries"`  // epochs that ended by a failure of the job's own, and were not the last

	Faults FaultCounts `json:"faults"`

	VirtualSeconds float64 `json:"virtual_s"`
	Entries        uint64  `json:"entries"`
	Commands       uint64  `json:"commands"`
	Events         uint64  `json:"events"`
	FullChecks     int     `json:"full_checks"` // of the whole state
	HashChecks     int     `json:"hash_checks"` // of all servers' states against each other
	Restores       int     `json:"restores"`    // servers rebuilt from a snapshot and the log's tail
	StateHash      string  `json:"state_hash"`  // of the last state, 16 hex digits
}

func hex64(v uint64) string { return fmt.Sprintf("%016x", v) }

// speed is how fast a run was, by the caller's clock.
type speed struct {
	Wall   float64 `json:"wall_s"`
	Jobs   float64 `json:"jobs_per_s"`
	Events float64 `json:"events_per_s"`
}

func (r *Report) speed(wall time.Duration) speed {
	s := wall.Seconds()
	return speed{Wall: s, Jobs: float64(r.Jobs) / s, Events: float64(r.Events) / s}
}

// WriteJSON writes the report as one JSON object on one line. With a wall time above 0, which the caller measured, the
// object also has wall_s, jobs_per_s and events_per_s, and is no longer the same for the same Config. It returns the
// error of writing.
func (r *Report) WriteJSON(w io.Writer, wall time.Duration) error {
	enc := json.NewEncoder(w)
	if wall <= 0 {
		return enc.Encode(r)
	}
	return enc.Encode(struct {
		*Report
		speed
	}{r, r.speed(wall)})
}

// WriteText writes the report as a table for people; wall is as for WriteJSON. It returns the error of writing.
func (r *Report) WriteText(w io.Writer, wall time.Duration) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	f := &r.Faults
	row("cluster", "%d nodes, %d GPUs, seed %d", r.Nodes, r.GPUs, r.Seed)
	row("jobs", "%d: %d succeeded, %d failed, %d cancelled, %d refused", r.Jobs, r.Succeeded, r.Failed, r.Cancelled, r.Refused)
	row("completion time", "avg %s  p50 %s  p90 %s  p99 %s", clockText(r.AvgJCT), clockText(r.P50JCT), clockText(r.P90JCT), clockText(r.P99JCT))
	row("wait", "avg %s  p50 %s  p99 %s", clockText(r.AvgWait), clockText(r.P50Wait), clockText(r.P99Wait))
	row("makespan", "%s", clockText(r.Makespan))
	row("GPU time", "%.1f %% held, %.1f %% useful, %.0f GPU s lost", 100*r.GPUAllocation, 100*r.GPUGoodput, r.LostGPU)
	row("epochs", "%d: %d preempted, %d requeued, %d retried", r.Epochs, r.Preemptions, r.Requeues, r.Retries)
	row("faults", "%d node failures (%d with a new disk), %d GPU failures, %d partitions, %d agent restarts, %d leader changes",
		f.NodeFailures, f.Reimaged, f.GPUFailures, f.Partitions, f.AgentRestarts, f.LeaderChanges)
	row("", "%d worker failures, %d supervisors lost; reports: %d lost, %d repeated; orders: %d repeated",
		f.WorkerFailures, f.SupervisorsLost, f.ReportsLost, f.ReportsRepeated, f.OrdersRepeated)
	row("", "submissions: %d retried, %d repeated; %d cancels; %d drains, %d policy changes", f.SubmitsRetried, f.SubmitsRepeated, f.Cancels, f.Drains, f.PolicyChanges)
	row("log", "%d entries, %d commands, %d events", r.Entries, r.Commands, r.Events)
	row("checks", "%d of the whole state, %d of equal hashes, %d restores: all held", r.FullChecks, r.HashChecks, r.Restores)
	row("state hash", "%s", r.StateHash)
	if wall > 0 {
		s := r.speed(wall)
		row("speed", "%.2f s: %.0f jobs/s, %.0f events/s", s.Wall, s.Jobs, s.Events)
	}
	return t.Flush()
}

// clockText is a number of seconds as people say it.
func clockText(seconds float64) string {
	return (time.Duration(seconds*1000) * time.Millisecond).Round(time.Second).String()
}
