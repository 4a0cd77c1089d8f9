package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of one watch.
const (
	watchBuffer = 256             // messages that wait to be sent
	watchJobs   = 10_000          // ids that one watch may name
	watchMark   = 5 * time.Second // a quiet watch's index is brought up this often
)

// WatchJobs streams job changes in log order, from this server's own state.
//
// While the whole present state is sent (from_index 0, or reset), the messages
// carry index 0: only the mark "synced" that ends it has an index to resume
// from. A client that reads too slowly is cut off with ABORTED: it resumes
// with the last index that it received.
func (s *Service) WatchJobs(req *schedulerv1.WatchJobsRequest, stream grpc.ServerStreamingServer[schedulerv1.WatchJobsResponse]) error {
	if len(req.GetJobIds()) > watchJobs {
		return status.Errorf(codes.InvalidArgument, "job_ids: %d ids, at most %d: watch all jobs instead", len(req.GetJobIds()), watchJobs)
	}
	ctx, done, err := s.openStream(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	w := &watch{
		replica: s.cfg.Replica,
		from:    req.GetFromIndex(),
		out:     newOutbox(ctx, &s.streams, watchBuffer, stream.Send),
	}
	if len(req.GetJobIds()) > 0 {
		w.ids = make(map[cluster.JobID]bool, len(req.GetJobIds()))
	}
	for _, id := range req.GetJobIds() {
		w.ids[cluster.JobID(id)] = true
	}
	return toStatus(s.log, w.run(ctx))
}

// watch is one client's walk along the log. One goroutine owns it.
type watch struct {
	replica Replica
	out     *outbox[schedulerv1.WatchJobsResponse]
	ids     map[cluster.JobID]bool // nil: all
	from    uint64                 // all changes up to it have been queued
	marked  uint64                 // the last index that the client was told is complete
}

// run returns when the stream ends, never nil.
func (w *watch) run(ctx context.Context) error {
	live := w.from == 0
	if live {
		if err := w.dump(ctx, false); err != nil {
			return err
		}
	}
	mark := time.NewTicker(watchMark)
	defer mark.Stop()
	for {
		updated := w.replica.Updated()
		ok, err := w.catchUp(ctx)
		switch {
		case err != nil:
			return err
		case !ok && live:
			return errStalled // it fell behind by more than the server remembers
		case !ok:
			if err := w.dump(ctx, true); err != nil {
				return err
			}
			live = true
			continue
		case !live && w.marked < w.from:
			if err := w.mark(ctx); err != nil {
				return err
			}
		}
		live = true
		select {
		case <-updated:
		case <-mark.C:
			if err := w.mark(ctx); err != nil {
				return err
			}
		case <-w.out.done:
			return w.out.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// catchUp queues all changes after w.from. Without ok they are remembered no
// more.
func (w *watch) catchUp(ctx context.Context) (ok bool, err error) {
	for {
		events, ok := w.replica.Events(w.from)
		if !ok {
			return false, nil
		}
		if len(events) == 0 {
			return true, nil
		}
		var last *schedulerv1.WatchJobsResponse
		for _, e := range events {
			w.from = e.Index
			if e.Job == nil || !w.wants(e.Job.ID) {
				continue
			}
			if last != nil {
				if err := w.out.put(ctx, last); err != nil {
					return true, err
				}
			}
			st := w.replica.State()
			last = &schedulerv1.WatchJobsResponse{Index: e.Index, Job: wholeJobToProto(st, e.Job, st.Now())}
		}
		if last != nil {
			// All changes of an index come together: up to here nothing is missing.
			last.Synced, w.marked = true, last.GetIndex()
			if err := w.out.put(ctx, last); err != nil {
				return true, err
			}
		}
	}
}

func (w *watch) wants(id cluster.JobID) bool { return w.ids == nil || w.ids[id] }

// mark tells the client how far it is, if it does not know.
func (w *watch) mark(ctx context.Context) error {
	if w.marked == w.from {
		return nil
	}
	w.marked = w.from
	return w.out.put(ctx, &schedulerv1.WatchJobsResponse{Index: w.from, Synced: true})
}

// dump queues the whole present state, then a mark.
func (w *watch) dump(ctx context.Context, reset bool) error {
	st := w.replica.State()
	if reset {
		if err := w.out.put(ctx, &schedulerv1.WatchJobsResponse{Reset_: true}); err != nil {
			return err
		}
	}
	var err error
	st.EachJob(func(j *cluster.Job) bool {
		if w.wants(j.ID) {
			err = w.out.put(ctx, &schedulerv1.WatchJobsResponse{Job: wholeJobToProto(st, j, st.Now()), Reset_: reset})
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	w.from, w.marked = st.Index(), st.Index()
	return w.out.put(ctx, &schedulerv1.WatchJobsResponse{Index: w.from, Synced: true, Reset_: reset})
}
