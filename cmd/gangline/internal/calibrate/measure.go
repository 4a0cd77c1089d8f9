package calibrate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// Config is a workload and the cluster that it is made for.
type Config struct {
	Jobs  int
	Nodes int
	GPUs  int           // of each node
	Mean  time.Duration // length of a job, about
	Load  float64       // GPU time that jobs ask for, as a part of what there is while they arrive
	Seed  uint64
	Dir   string // where jobs write when they began and ended; all nodes must see it
}

// DefaultConfig is some hundred jobs on 32 GPUs, a little more than fits.
func DefaultConfig() Config {
	return Config{Jobs: 300, Nodes: 4, GPUs: 8, Mean: 6 * time.Second, Load: 1.1, Seed: 1}
}

// Validate says what is wrong with a config, or nil.
func (c *Config) Validate() error {
	if c.Jobs < 1 || c.Jobs > 10_000 || c.Nodes < 1 || c.Nodes > 64 || c.GPUs < 1 || c.GPUs > 64 {
		return fmt.Errorf("calibrate with %d jobs on %d nodes of %d GPUs: allowed are 1..10000 jobs, 1..64 nodes, 1..64 GPUs", c.Jobs, c.Nodes, c.GPUs)
	}
	if c.Mean < 100*time.Millisecond || c.Mean > time.Hour || !(c.Load > 0 && c.Load <= 10) {
		return fmt.Errorf("calibrate with jobs of %s at load %g: allowed are 100ms..1h, and loads above 0 up to 10", c.Mean, c.Load)
	}
	return nil
}

// Job is one job of the workload, and what was measured of it.
type Job struct {
	Submit time.Duration // after the first one; as planned
	Length time.Duration // that its processes were told to sleep
	GPUs   int

	ID                         uint64
	Submitted, Started, Finish time.Time // by the leader's clock
	Began, Ended               time.Time // its last process began, its last process ended: by the machine's clock
}

// workload draws the jobs: Poisson arrivals, exponential lengths of at least a fifth of the mean, gangs of powers of two
// of which small ones are more frequent, up to half of the cluster.
func (c *Config) workload() []*Job {
	rng := mrand.New(mrand.NewPCG(c.Seed, 0))
	jobs := make([]*Job, c.Jobs)
	asked := 0.0
	for i := range jobs {
		j := &Job{GPUs: 1}
		for rng.Float64() < 0.55 && 4*j.GPUs <= c.Nodes*c.GPUs {
			j.GPUs *= 2
		}
		j.Length = time.Duration((0.2 + 0.8*rng.ExpFloat64()) * float64(c.Mean)).Round(time.Millisecond)
		asked += float64(j.GPUs) * j.Length.Seconds()
		jobs[i] = j
	}
	gap := asked / float64(c.Nodes*c.GPUs) / c.Load / float64(c.Jobs)
	at := 0.0
	for _, j := range jobs {
		j.Submit = time.Duration(at * float64(time.Second))
		at += gap * rng.ExpFloat64()
	}
	return jobs
}

// perNode is how many of a gang's GPUs are on each of its nodes, as a replay has it: all of them, or whole nodes.
func (c *Config) perNode(gpus int) int {
	if gpus <= c.GPUs {
		return gpus
	}
	return c.GPUs
}

// script is what a process does: $0 is the directory, $1 how long it sleeps.
const script = `t="$0/$GANGLINE_JOB_ID-$GANGLINE_NODE_RANK"; date +%s%N >"$t.began"; sleep "$1"; date +%s%N >"$t.ended"`

// ErrDisturbed says that a job was started more than once although nothing was done to the cluster: the machine is too
// busy for its agents to be heard in time.
var ErrDisturbed = errors.New("the cluster lost a node under the load, so that its times say nothing")

// Run is what was measured on a cluster.
type Run struct {
	Jobs []*Job
	// Stalled is for how long, in all, the leader did not answer in time. For so long everything may have waited that no
	// measured cost explains.
	Stalled time.Duration
}

// Measure runs the workload on a cluster, which should have nothing else to do, and takes the times. It returns an error
// if a job fails.
func Measure(ctx context.Context, api schedulerv1.SchedulerServiceClient, c Config) (*Run, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Run{Jobs: c.workload()}
	g, runCtx := errgroup.WithContext(ctx)
	began := time.Now()
	for _, j := range r.Jobs {
		g.Go(func() error { return c.run(runCtx, api, j, began.Add(j.Submit)) })
	}
	probeCtx, stop := context.WithCancel(ctx)
	probed := make(chan time.Duration, 1)
	go func() { probed <- probe(probeCtx, api) }()
	err := g.Wait()
	stop()
	if r.Stalled = <-probed; err != nil {
		return nil, err
	}
	return r, nil
}

// How often the leader is asked, and how long it may take to answer before the rest counts as a stall.
const (
	probeEvery  = 200 * time.Millisecond
	probeInTime = 50 * time.Millisecond
)

// probe asks the leader for something again and again until ctx ends, and adds up how late the answers are.
func probe(ctx context.Context, api schedulerv1.SchedulerServiceClient) time.Duration {
	stalled := time.Duration(0)
	for {
		at := time.Now()
		if sleepUntil(ctx, at.Add(probeEvery)) != nil {
			return stalled
		}
		_, _ = api.ListNodes(ctx, &schedulerv1.ListNodesRequest{}) // an error is an answer, too: late, if the servers are in trouble
		if ctx.Err() == nil {
			stalled += max(time.Since(at)-probeEvery-probeInTime, 0)
		}
	}
}

// run submits a job at its time and waits for its end.
func (c *Config) run(ctx context.Context, api schedulerv1.SchedulerServiceClient, j *Job, at time.Time) error {
	if err := sleepUntil(ctx, at); err != nil {
		return err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails, says its documentation
	made, err := api.SubmitJob(ctx, &schedulerv1.SubmitJobRequest{
		RequestId: hex.EncodeToString(id[:]), User: user,
		Spec: &schedulerv1.JobSpec{
			Name: name, Queue: queue, Gpus: int32(j.GPUs), GpusPerNode: int32(c.perNode(j.GPUs)), //nolint:gosec // at most 4096
			Launch: schedulerv1.LaunchMode_LAUNCH_MODE_PER_NODE, Preemptible: true,
			Command: []string{"/bin/sh", "-c", script, c.Dir, strconv.FormatFloat(j.Length.Seconds(), 'f', 3, 64)},
		},
	})
	if err != nil {
		return fmt.Errorf("submit a job: %w", err)
	}
	j.ID = made.GetJob().GetId()
	for {
		resp, err := api.GetJob(ctx, &schedulerv1.GetJobRequest{Id: j.ID})
		if err != nil {
			return fmt.Errorf("look at job %d: %w", j.ID, err)
		}
		switch got := resp.GetJob(); {
		case got.GetState() == schedulerv1.JobState_JOB_STATE_SUCCEEDED && got.GetEpoch() == 1:
			j.Submitted, j.Started, j.Finish = time.Unix(0, got.GetSubmittedUnixNs()), time.Unix(0, got.GetStartedUnixNs()), time.Unix(0, got.GetFinishedUnixNs())
			return c.stamps(j)
		case got.GetState() == schedulerv1.JobState_JOB_STATE_SUCCEEDED:
			return fmt.Errorf("job %d needed %d epochs: %w", j.ID, got.GetEpoch(), ErrDisturbed)
		case got.GetFinishedUnixNs() != 0:
			return fmt.Errorf("job %d ended as %s in epoch %d: %s", j.ID, got.GetState(), got.GetEpoch(), got.GetReason())
		}
		if err := sleepUntil(ctx, time.Now().Add(500*time.Millisecond)); err != nil {
			return err
		}
	}
}

// Names that the workload has on both sides: what is learned of jobs is learned by them.
const (
	name, queue, user = "replayed", "calibrate", "calibrate"
)

// stamps reads when the job's processes began and ended.
func (c *Config) stamps(j *Job) error {
	for rank := range j.GPUs / c.perNode(j.GPUs) {
		for _, s := range []struct {
			what string
			to   *time.Time
		}{{"began", &j.Began}, {"ended", &j.Ended}} {
			path := filepath.Join(c.Dir, fmt.Sprintf("%d-%d.%s", j.ID, rank, s.what))
			b, err := os.ReadFile(path) //nolint:gosec // G304: our own file
			if err != nil {
				return fmt.Errorf("when job %d %s: %w", j.ID, s.what, err)
			}
			ns, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			if err != nil || ns > math.MaxInt64/2 {
				return fmt.Errorf("when job %d %s: %s holds %q, not nanoseconds: this needs GNU date", j.ID, s.what, path, b)
			}
			if t := time.Unix(0, ns); t.After(*s.to) {
				*s.to = t
			}
		}
	}
	return nil
}

func sleepUntil(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
