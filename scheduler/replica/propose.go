package replica

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	raftlogv1 "github.com/gangline/gangline/proto/gangline/raftlog/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// Propose appends the commands to the log and returns what Apply said of each,
// and the index of the last one's entry. This server's State holds them when it
// returns. Commands of one call are applied in their order; they share an entry
// with other callers' commands and, if they exceed 1 MiB together, span several
// entries. A new leader makes callers wait until it is ready.
//
// Errors: *NotLeaderError (nothing was appended), ErrBusy (nothing was
// appended), ErrUnknownOutcome (try again), ErrClosed, the failure of the
// replica, or a complaint about a command that is larger than an entry. Safe
// for concurrent use.
func (r *Replica) Propose(ctx context.Context, cmds ...cluster.Command) (results []cluster.Result, index uint64, err error) {
	p, err := newProposal(cmds)
	if err != nil {
		return nil, 0, err
	}
	if len(cmds) == 0 {
		return nil, r.State().Index(), nil
	}
	if _, err := r.readyLeadership(ctx); err != nil {
		return nil, 0, err
	}
	return r.submit(ctx, p)
}

// proposal is one caller's commands on their way. The proposer and the
// completer write it; the caller reads it once done is closed.
type proposal struct {
	commands [][]byte
	results  []cluster.Result
	taken    int // commands that the proposer has put in entries
	entries  int // how many it has used for them

	open  atomic.Int32 // entries not completed yet, plus 1 until all commands are taken
	err   atomic.Pointer[error]
	index uint64 // completer's
	done  chan struct{}
}

func newProposal(cmds []cluster.Command) (*proposal, error) {
	p := &proposal{commands: make([][]byte, len(cmds)), results: make([]cluster.Result, len(cmds)), done: make(chan struct{})}
	p.open.Store(1)
	for i, c := range cmds {
		p.commands[i] = cluster.AppendCommand(nil, c)
		if n := len(p.commands[i]); n > cluster.MaxCommandBytes {
			return nil, fmt.Errorf("command %d of %d (%T) takes %d bytes, more than the %d that one log entry holds: make it smaller", i+1, len(cmds), c, n, cluster.MaxCommandBytes)
		}
	}
	return p, nil
}

// fail keeps the first error.
func (p *proposal) fail(err error) { p.err.CompareAndSwap(nil, &err) }

// release ends one entry's, or the proposer's, hold on p.
func (p *proposal) release() {
	if p.open.Add(-1) == 0 {
		close(p.done)
	}
}

// outcome is for the caller, after done.
func (p *proposal) outcome() ([]cluster.Result, uint64, error) {
	if err := p.err.Load(); err != nil {
		if p.entries > 1 && !errors.Is(*err, ErrUnknownOutcome) {
			return nil, 0, fmt.Errorf("%w: some of its %d entries may have committed: %w", ErrUnknownOutcome, p.entries, *err)
		}
		return nil, 0, *err
	}
	return p.results, p.index, nil
}

// submit queues a proposal and waits for its outcome.
func (r *Replica) submit(ctx context.Context, p *proposal) ([]cluster.Result, uint64, error) {
	timeout := time.NewTimer(r.cfg.ProposeTimeout)
	defer timeout.Stop()
	select {
	case r.proposals <- p:
	case <-ctx.Done():
		return nil, 0, fmt.Errorf("propose: nothing was appended: %w", ctx.Err())
	case <-timeout.C:
		return nil, 0, ErrBusy
	case <-r.stopping:
		return nil, 0, ErrClosed
	}
	select {
	case <-p.done:
		return p.outcome()
	case <-ctx.Done():
		return nil, 0, fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	case <-timeout.C:
		return nil, 0, fmt.Errorf("%w: no commit within %s", ErrUnknownOutcome, r.cfg.ProposeTimeout)
	case <-r.failed:
	case <-r.proposerDone:
	}
	select {
	case <-p.done:
		return p.outcome()
	default:
	}
	if failure := r.Err(); failure != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrUnknownOutcome, failure)
	}
	return nil, 0, ErrClosed // it was still in the queue
}

// part is a run of one proposal's commands inside an entry.
type part struct {
	p        *proposal
	from, to int
}

// entry is a log entry being filled, then in flight.
type entry struct {
	parts    []part
	commands [][]byte
	bytes    int
	future   raft.ApplyFuture
	began    time.Time
}

// take moves as many of p's commands as fit, and reports whether that was all.
func (e *entry) take(p *proposal) bool {
	from := p.taken
	for p.taken < len(p.commands) {
		n := len(p.commands[p.taken]) + commandOverhead
		if e.bytes+n > maxEntryBytes-entryOverhead || len(e.commands) == maxEntryCommands {
			break
		}
		e.commands = append(e.commands, p.commands[p.taken])
		e.bytes += n
		p.taken++
	}
	if p.taken > from {
		p.entries++
		p.open.Add(1)
		e.parts = append(e.parts, part{p, from, p.taken})
	}
	return p.taken == len(p.commands)
}

// runProposer gathers waiting proposals into entries. It takes a slot before it
// gathers, so that while entries are in flight the next one fills up.
func (r *Replica) runProposer() {
	defer close(r.flight)
	for {
		var p *proposal
		select {
		case p = <-r.proposals:
		case <-r.stopping:
			return
		}
		for p != nil {
			r.slots <- struct{}{} // the completer always frees one
			e := &entry{}
			for p != nil && e.take(p) {
				p.release()
				p = r.nextProposal()
			}
			r.append(e)
			if p != nil && p.err.Load() != nil {
				p.release() // its first part failed: the rest must not overtake it
				p = nil
			}
		}
	}
}

func (r *Replica) nextProposal() *proposal {
	select {
	case p := <-r.proposals:
		return p
	default:
		return nil
	}
}

// append hands an entry to Raft and passes it on to the completer.
func (r *Replica) append(e *entry) {
	data, err := proto.Marshal(&raftlogv1.Entry{
		Version: cluster.Version, ProposedUnixNs: r.cfg.Clock().UnixNano(), Commands: e.commands,
	})
	if err != nil { // a bug: the message has no field that can fail
		for _, pt := range e.parts {
			pt.p.fail(fmt.Errorf("encode log entry: %w", err))
			pt.p.release()
		}
		<-r.slots
		return
	}
	e.began = time.Now()
	e.future = r.raft.Apply(data, enqueueTimeout)
	r.flight <- e
}

// runCompleter waits for entries in their order and tells their callers.
func (r *Replica) runCompleter() {
	defer close(r.proposerDone)
	for e := range r.flight {
		err := r.proposeError(e.future.Error())
		var results []cluster.Result
		if err == nil {
			switch resp := e.future.Response().(type) {
			case []cluster.Result:
				results = resp
				r.metrics.committed(len(resp), time.Since(e.began))
			case error:
				err = fmt.Errorf("%w: %w", ErrUnknownOutcome, resp)
			}
		}
		for _, pt := range e.parts {
			if err != nil {
				pt.p.fail(err)
			} else {
				copy(pt.p.results[pt.from:pt.to], results)
				results = results[pt.to-pt.from:]
				pt.p.index = e.future.Index()
			}
			pt.p.release()
		}
		<-r.slots
	}
}

// proposeError translates Raft's error of an entry.
func (r *Replica) proposeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return r.notLeader()
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrBusy
	}
	if failure := r.Err(); failure != nil {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, failure)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}
