package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// How one worker's output is read.
const (
	logPiece      = 64 << 10         // most bytes of one message
	logIdle       = 10 * time.Second // an agent that says nothing for so long is given up, without follow
	logTries      = 3                // tries in a row without a byte, once the worker has ended
	logRetryPause = 500 * time.Millisecond
)

// errQuiet means that an agent was given up.
var errQuiet = errors.New("the agent does not answer")

// reader reads one stream of one worker. One goroutine owns it.
type reader struct {
	logs *logs
	source
	epoch  cluster.Epoch
	worker cluster.Worker
	got    int64 // bytes queued so far
}

// run queues all output of the stream. When the connection to the agent
// breaks it goes on where it was. It returns an error only if the client's
// stream has ended; all else becomes a note.
func (r *reader) run(ctx context.Context) error {
	failures := 0
	for {
		name, address := r.logs.where(r.worker.Node)
		if address == "" {
			return r.note(ctx, fmt.Sprintf("the output on node %s cannot be read: the scheduler has no address of its agent", name))
		}
		before := r.got
		err := r.read(ctx, address)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, new(*clientError)):
			return err
		case status.Code(err) == codes.NotFound:
			return r.noOutput(ctx, name, err)
		}
		if r.got > before {
			failures = 0
		}
		failures++
		state, lost := r.workerNow()
		if !r.logs.req.GetFollow() || lost || (state.Ended() && failures >= logTries) {
			return r.note(ctx, fmt.Sprintf("the output on node %s cannot be read: %s", name, plain(err)))
		}
		if failures == 1 {
			if err := r.note(ctx, fmt.Sprintf("the connection to node %s broke, trying again: %s%s", name, plain(err), r.repeats())); err != nil {
				return err
			}
		}
		t := time.NewTimer(logRetryPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// clientError is an error of the client's own stream.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// repeats warns that lines come twice: where "the last lines" began is not known.
func (r *reader) repeats() string {
	if r.logs.req.GetTailLines() > 0 && r.got > 0 {
		return " (lines may repeat)"
	}
	return ""
}

// read reads from the agent once, past what was queued before.
func (r *reader) read(ctx context.Context, address string) error {
	conn, err := r.logs.conns.get(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := r.giveUp(cancel)
	defer quiet.stop()
	stream, err := agentv1.NewNodeServiceClient(conn).ReadLogs(ctx, &agentv1.ReadLogsRequest{
		Key:    &agentv1.WorkerKey{JobId: uint64(r.logs.id), Epoch: uint64(r.epoch), Rank: int32(r.rank)},
		Stderr: r.stream == schedulerv1.LogStream_LOG_STREAM_STDERR,
		Follow: r.logs.req.GetFollow(), TailLines: r.logs.req.GetTailLines(),
	})
	if err != nil {
		return err
	}
	skip := r.got
	if r.logs.req.GetTailLines() > 0 {
		skip = 0
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if errors.Is(context.Cause(ctx), errQuiet) {
				return errQuiet
			}
			return err
		}
		quiet.pause() // a slow client is not a quiet agent
		data := m.GetData()
		old := min(skip, int64(len(data)))
		skip -= old
		if err := r.queue(ctx, data[old:]); err != nil {
			return &clientError{err}
		}
		quiet.resume()
	}
}

// queue hands on bytes in pieces.
func (r *reader) queue(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), logPiece)
		err := r.logs.out.put(ctx, &schedulerv1.StreamLogsResponse{
			Rank: int32(r.rank), Epoch: uint64(r.epoch), Stream: r.stream, Data: data[:n],
		})
		if err != nil {
			return err
		}
		r.got += int64(n)
		data = data[n:]
	}
	return nil
}

// giveUp cancels a read from which nothing came for logIdle: without follow at
// once, with follow if the worker has ended or its node is lost, since a
// training process may well be silent for hours.
func (r *reader) giveUp(cancel context.CancelCauseFunc) *poll {
	return startPoll(logIdle, func() (again bool) {
		state, lost := r.workerNow()
		if r.logs.req.GetFollow() && !lost && !state.Ended() {
			return true
		}
		cancel(errQuiet)
		return false
	})
}

// workerNow is the worker's state now, and whether its node is given up.
func (r *reader) workerNow() (state cluster.WorkerState, lost bool) {
	st := r.logs.replica.State()
	n := st.Node(r.worker.Node)
	lost = n == nil || n.State == cluster.NodeLost
	j := st.Job(r.logs.id)
	if j == nil || j.Epoch != r.epoch || !j.State.Holding() {
		return cluster.WorkerExited, lost
	}
	w := &j.Workers[r.rank]
	return w.State, lost || w.State == cluster.WorkerLost
}

func (r *reader) note(ctx context.Context, text string) error {
	return r.logs.note(ctx, r.rank, r.epoch, text)
}

// noOutput says once for each worker why it has none.
func (r *reader) noOutput(ctx context.Context, name string, err error) error {
	if r.stream == schedulerv1.LogStream_LOG_STREAM_STDERR && r.logs.req.GetStream() == schedulerv1.LogStream_LOG_STREAM_UNSPECIFIED {
		return nil // standard output says it
	}
	return r.note(ctx, fmt.Sprintf("node %s has no output of rank %d: %s", name, r.rank, plain(err)))
}

// plain is an error's own words, without gRPC's wrapping.
func plain(err error) string {
	if st, ok := status.FromError(err); ok {
		return st.Message()
	}
	return err.Error()
}
