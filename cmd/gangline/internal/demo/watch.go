package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// follower keeps the newest word on every job, by watching the API as any
// client would, across leaders that come and go.
type follower struct {
	client schedulerv1.SchedulerServiceClient
	on     func(old, job *schedulerv1.Job) // called for each change, in order

	mu      sync.Mutex // guards the fields below
	jobs    map[uint64]*schedulerv1.Job
	changed chan struct{} // closed and replaced at each change
}

func newFollower(c schedulerv1.SchedulerServiceClient, on func(old, job *schedulerv1.Job)) *follower {
	return &follower{client: c, on: on, jobs: map[uint64]*schedulerv1.Job{}, changed: make(chan struct{})}
}

// run watches until ctx ends.
func (f *follower) run(ctx context.Context) error {
	var index uint64
	for ctx.Err() == nil {
		stream, err := f.client.WatchJobs(ctx, &schedulerv1.WatchJobsRequest{FromIndex: index})
		for err == nil {
			var ev *schedulerv1.WatchJobsResponse
			if ev, err = stream.Recv(); err == nil {
				index = max(index, ev.GetIndex())
				f.take(ev.GetJob())
			}
		}
		select {
		case <-time.After(100 * time.Millisecond): // its server was killed: the next one goes on from index
		case <-ctx.Done():
		}
	}
	return nil
}

func (f *follower) take(job *schedulerv1.Job) {
	if job == nil {
		return
	}
	f.mu.Lock()
	old := f.jobs[job.GetId()]
	f.jobs[job.GetId()] = job
	close(f.changed)
	f.changed = make(chan struct{})
	f.mu.Unlock()
	f.on(old, job)
}

// job returns the newest word on a job, or nil.
func (f *follower) job(id uint64) *schedulerv1.Job {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.jobs[id]
}

// wait blocks until ok holds for a job.
func (f *follower) wait(ctx context.Context, id uint64, what string, ok func(*schedulerv1.Job) bool) (*schedulerv1.Job, error) {
	for {
		f.mu.Lock()
		job, changed := f.jobs[id], f.changed
		f.mu.Unlock()
		if job != nil && ok(job) {
			return job, nil
		}
		if job != nil && job.GetState() > schedulerv1.JobState_JOB_STATE_SUCCEEDED {
			return nil, fmt.Errorf("job %d %s before %s: %s", id, stateName(job), what, job.GetReason())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("job %d never came to %s: %w", id, what, ctx.Err())
		}
	}
}
