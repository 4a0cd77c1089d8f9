package record

import (
	"encoding/csv"
	"io"
	"strconv"
	"time"

	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// JobsCSV writes every job as it ends.
type JobsCSV struct{ rows *csv.Writer }

// NewJobsCSV writes the heading. What is written is buffered until Flush.
func NewJobsCSV(w io.Writer) (*JobsCSV, error) {
	c := &JobsCSV{csv.NewWriter(w)}
	return c, c.rows.Write([]string{
		"job_id", "user", "queue", "gpus", "gpu_milli", "submit_s", "duration_s", "first_start_s", "end_s", "jct_s", "wait_s",
		"preemptions", "finish_time_fairness", "outcome",
	})
}

// Watch returns what the replay must tell.
func (c *JobsCSV) Watch() *replay.Watch { return &replay.Watch{Outcome: c.outcome} }

// Flush writes what is buffered, and returns the first error of writing.
func (c *JobsCSV) Flush() error {
	c.rows.Flush()
	return c.rows.Error()
}

func (c *JobsCSV) outcome(o *replay.Outcome) error {
	j := o.Job
	end, jct, wait, rho := "", "", "", ""
	if o.Ended >= 0 {
		end, jct, wait = seconds(o.Ended), seconds(o.JCT()), seconds(o.Wait())
		rho = strconv.FormatFloat(o.Fairness, 'g', 6, 64)
	}
	start := ""
	if o.Started >= 0 {
		start = seconds(o.Started)
	}
	return c.rows.Write([]string{
		j.ID, j.User, j.Queue, strconv.Itoa(int(j.GPUs)), strconv.Itoa(int(j.Milli)), seconds(j.Submit), seconds(j.Length), start, end, jct, wait,
		strconv.Itoa(o.Preemptions), rho, o.State,
	})
}

// PodsCSV writes every pod of a placement as it arrives.
type PodsCSV struct{ rows *csv.Writer }

// NewPodsCSV writes the heading. What is written is buffered until Flush.
func NewPodsCSV(w io.Writer) (*PodsCSV, error) {
	c := &PodsCSV{csv.NewWriter(w)}
	return c, c.rows.Write([]string{"job_id", "gpus", "gpu_milli", "cpu", "mem_mib", "outcome", "node"})
}

// Pod writes a row; no node: it found no room.
func (c *PodsCSV) Pod(p *trace.Job, node string) error {
	outcome := "placed"
	if node == "" {
		outcome = "lost"
	}
	return c.rows.Write([]string{
		p.ID, strconv.Itoa(int(p.GPUs)), strconv.Itoa(int(p.Milli)), whole(p.CPU), strconv.FormatFloat(float64(p.Mem)/(1<<20), 'f', -1, 64), outcome, node,
	})
}

// Flush writes what is buffered, and returns the first error of writing.
func (c *PodsCSV) Flush() error {
	c.rows.Flush()
	return c.rows.Error()
}

// SamplesCSV writes samples as they come: a row for all, then one for each queue.
type SamplesCSV struct {
	rows  *csv.Writer
	every time.Duration
}

// AllQueues is what the rows of a sample that are of all queues have in the column queue.
const AllQueues = "(all)"

// NewSamplesCSV writes the heading, for samples at some distance. What is written is buffered until Flush.
func NewSamplesCSV(w io.Writer, every time.Duration) (*SamplesCSV, error) {
	c := &SamplesCSV{csv.NewWriter(w), every}
	return c, c.rows.Write([]string{
		"time_s", "part", "queue", "pending_jobs", "pending_gpus", "running_jobs", "held_gpus", "avg_age_s", "gpus", "fragmentation_pct",
	})
}

// Watch returns what the replay must tell.
func (c *SamplesCSV) Watch() *replay.Watch {
	return &replay.Watch{Samplers: []replay.Sampler{{Every: c.every, Take: c.take}}}
}

// Flush writes what is buffered, and returns the first error of writing.
func (c *SamplesCSV) Flush() error {
	c.rows.Flush()
	return c.rows.Error()
}

func (c *SamplesCSV) take(s *replay.Sample) (time.Duration, error) {
	at := seconds(s.At)
	row := func(q *replay.QueueSample, name, gpus, fragmented string) error {
		return c.rows.Write([]string{
			at, s.Part, name, strconv.Itoa(q.Pending), whole(q.PendingGPUs), strconv.Itoa(q.Running), whole(q.Held), seconds(q.AvgAge), gpus, fragmented,
		})
	}
	if err := row(&s.All, AllQueues, strconv.FormatInt(s.GPUs, 10), strconv.FormatFloat(100*s.Fragmented, 'f', 3, 64)); err != nil {
		return 0, err
	}
	for i := range s.Queues {
		if err := row(&s.Queues[i], s.Queues[i].Queue, "", ""); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// seconds writes a time with as many decimals as it has, three at most.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Round(time.Millisecond)/time.Millisecond)/1000, 'f', -1, 64)
}

// whole writes thousandths of GPUs as GPUs.
func whole(thousandths int64) string {
	return strconv.FormatFloat(float64(thousandths)/milli, 'f', -1, 64)
}
