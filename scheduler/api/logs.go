package api

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of one log stream.
const (
	logBuffer   = 32                     // messages that wait to be sent, each at most 64 KiB
	logReaders  = 16                     // workers' streams read at once, without follow
	logFollowed = 1024                   // workers' streams followed at once
	logNodes    = 2048                   // agents connected to at once
	logPause    = 100 * time.Millisecond // between two looks at a changing state
)

// StreamLogs streams the output of a job's workers, merged, from the agents
// that hold it. A node that cannot be read yields a note; the other ranks go
// on. With follow it goes on into the next epochs until the job is final.
func (s *Service) StreamLogs(req *schedulerv1.StreamLogsRequest, stream grpc.ServerStreamingServer[schedulerv1.StreamLogsResponse]) error {
	if req.GetTailLines() < 0 {
		return status.Errorf(codes.InvalidArgument, "tail_lines: %d is negative", req.GetTailLines())
	}
	ctx, done, err := s.openStream(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	if err := s.learnOf(ctx, cluster.JobID(req.GetJobId())); err != nil {
		return toStatus(s.log, err)
	}
	l := &logs{
		replica: s.cfg.Replica, req: req, id: cluster.JobID(req.GetJobId()),
		conns: newConnCache(s.cfg.AgentDialOptions, logNodes),
		out:   newOutbox(ctx, &s.streams, logBuffer, stream.Send),
	}
	defer l.conns.close()
	if err := l.run(ctx); err != nil {
		return toStatus(s.log, err)
	}
	return toStatus(s.log, l.out.finish(ctx))
}

// learnOf waits until this server knows of a job that the leader knows.
func (s *Service) learnOf(ctx context.Context, id cluster.JobID) error {
	if s.cfg.Replica.State().Job(id) != nil {
		return nil
	}
	got, err := s.GetJob(ctx, &schedulerv1.GetJobRequest{Id: uint64(id)})
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	return s.cfg.Replica.WaitIndex(wait, got.GetIndex())
}

// logs is one client's view of a job's output. One goroutine, run, owns it;
// the readers that it starts share out and conns.
type logs struct {
	replica Replica
	req     *schedulerv1.StreamLogsRequest
	id      cluster.JobID
	conns   *connCache
	out     *outbox[schedulerv1.StreamLogsResponse]
}

// run goes through the epochs and returns nil when all output was queued.
func (l *logs) run(ctx context.Context) error {
	shown := cluster.Epoch(0) // the last epoch whose output was queued
	told := ""                // the last note about a wait
	for {
		updated := l.replica.Updated()
		j := l.replica.State().Job(l.id)
		if j == nil {
			return noJob(l.id)
		}
		target := cluster.Epoch(l.req.GetEpoch())
		switch {
		case target != 0 && target < j.Epoch:
			past := pastEpoch(j, target)
			if past == nil {
				return status.Errorf(codes.NotFound, "job %d is in epoch %d: where the workers of epoch %d ran is no longer known, only the last %d are kept", j.ID, j.Epoch, target, cluster.MaxHistory)
			}
			return l.epoch(ctx, past)
		case target > j.Epoch && (!l.req.GetFollow() || j.State.Final()):
			return status.Errorf(codes.NotFound, "job %d is in epoch %d, it has no epoch %d", j.ID, j.Epoch, target)
		}
		if j.Epoch > shown && (target == 0 || target == j.Epoch) {
			next := j
			if past := pastEpoch(j, shown+1); shown > 0 && past != nil {
				next = past // it came and went since the last look
			}
			if err := l.epoch(ctx, next); err != nil {
				return err
			}
			if shown = next.Epoch; target != 0 {
				return nil
			}
			continue
		}
		if !l.req.GetFollow() || j.State.Final() {
			if shown == 0 {
				return l.note(ctx, wholeJob, 0, "the job has not started: "+j.Reason)
			}
			return nil
		}
		if j.State == cluster.Pending && told != j.Reason {
			told = j.Reason
			if err := l.note(ctx, wholeJob, j.Epoch, j.Reason); err != nil {
				return err
			}
		}
		if err := l.pause(ctx, updated); err != nil {
			return err
		}
	}
}

// pastEpoch is the job as it was at the end of an epoch, as far as its output
// is concerned, or nil if that epoch is not remembered.
func pastEpoch(j *cluster.Job, epoch cluster.Epoch) *cluster.Job {
	i := slices.IndexFunc(j.History, func(l cluster.Launch) bool { return l.Epoch == epoch })
	if i < 0 || epoch == j.Epoch {
		return nil
	}
	past := *j
	past.Epoch, past.State = epoch, cluster.Failed
	past.Workers = make([]cluster.Worker, j.History[i].WorldSize())
	for r := range past.Workers {
		past.Workers[r] = cluster.Worker{Rank: cluster.Rank(r), Node: j.History[i].NodeOf(cluster.Rank(r)), State: cluster.WorkerExited}
	}
	return &past
}

// pause waits for the state to change, and a little longer, so that a busy
// cluster does not make it spin.
func (l *logs) pause(ctx context.Context, updated <-chan struct{}) error {
	select {
	case <-updated:
	case <-l.out.done:
		return l.out.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t := time.NewTimer(logPause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wholeJob is the rank of a note that is on no worker.
const wholeJob cluster.Rank = -1

// note queues a note by Gangline.
func (l *logs) note(ctx context.Context, rank cluster.Rank, epoch cluster.Epoch, text string) error {
	return l.out.put(ctx, &schedulerv1.StreamLogsResponse{Rank: int32(rank), Epoch: uint64(epoch), Note: text})
}

// source is one stream of one worker.
type source struct {
	rank   cluster.Rank
	stream schedulerv1.LogStream
}

// sources lists what to read of an epoch.
func (l *logs) sources(j *cluster.Job) ([]source, error) {
	streams := []schedulerv1.LogStream{schedulerv1.LogStream_LOG_STREAM_STDOUT, schedulerv1.LogStream_LOG_STREAM_STDERR}
	if l.req.GetStream() != schedulerv1.LogStream_LOG_STREAM_UNSPECIFIED {
		streams = []schedulerv1.LogStream{l.req.GetStream()}
	}
	if l.req.Rank != nil && (l.req.GetRank() < 0 || int(l.req.GetRank()) >= len(j.Workers)) {
		return nil, status.Errorf(codes.NotFound, "job %d has no rank %d: ranks are 0..%d", j.ID, l.req.GetRank(), len(j.Workers)-1)
	}
	var all []source
	for i := range j.Workers {
		if l.req.Rank != nil && l.req.GetRank() != int32(i) {
			continue
		}
		for _, st := range streams {
			all = append(all, source{rank: cluster.Rank(i), stream: st})
		}
	}
	if l.req.GetFollow() && len(all) > logFollowed {
		return nil, status.Errorf(codes.FailedPrecondition, "job %d has %d streams of output, at most %d can be followed at once: choose a rank", j.ID, len(all), logFollowed)
	}
	return all, nil
}

// epoch queues the output of one epoch. With follow it starts reading a worker
// when it runs, and returns when all have ended.
func (l *logs) epoch(ctx context.Context, j *cluster.Job) error {
	todo, err := l.sources(j)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var readers sync.WaitGroup
	defer func() {
		cancel(nil)
		readers.Wait()
	}()
	slots := make(chan struct{}, logReaders)
	if l.req.GetFollow() {
		slots = make(chan struct{}, logFollowed)
	}
	start := func(src source, w cluster.Worker) error {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		readers.Go(func() {
			defer func() { <-slots }()
			r := &reader{logs: l, source: src, epoch: j.Epoch, worker: w}
			if err := r.run(ctx); err != nil {
				cancel(err) // the client is gone or too slow
			}
		})
		return nil
	}
	for {
		updated := l.replica.Updated()
		now := l.replica.State().Job(l.id)
		over := now == nil || now.Epoch != j.Epoch || !now.State.Holding()
		if now != nil && now.Epoch == j.Epoch {
			j = now
		}
		var later []source
		for _, src := range todo {
			w := j.Workers[src.rank]
			if w.State == cluster.WorkerAssigned && !over && l.req.GetFollow() {
				later = append(later, src)
				continue
			}
			if err := start(src, w); err != nil {
				return err
			}
		}
		if todo = later; len(todo) == 0 {
			break
		}
		if err := l.pause(ctx, updated); err != nil {
			return err
		}
	}
	readers.Wait()
	return context.Cause(ctx)
}

// where names a worker's node for people, and its agent's address or "".
func (l *logs) where(id cluster.NodeID) (name, address string) {
	n := l.replica.State().Node(id)
	if n == nil {
		return fmt.Sprintf("%s (forgotten)", id), ""
	}
	return n.Name, n.Address
}
