package replica

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	raftlogv1 "github.com/gangline/gangline/proto/gangline/raftlog/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// fsm turns log entries into states. Raft calls its methods from one goroutine,
// which owns state and failed; the rest is safe for readers.
type fsm struct {
	release   string
	fail      func(error)           // reports that this server must stop; does not block
	onCluster func(id string) error // told once of the state's identity

	state  *cluster.State
	failed error // set once; nothing is applied after it

	published atomic.Pointer[cluster.State]
	applied   atomic.Uint64 // index of the last entry seen, of any kind
	events    *ring
	updated   notifier
}

var _ raft.BatchingFSM = (*fsm)(nil)

func newFSM(release string, events int, fail func(error), onCluster func(string) error) *fsm {
	f := &fsm{release: release, fail: fail, onCluster: onCluster, state: &cluster.State{}, events: newRing(events)}
	f.published.Store(f.state.Snapshot())
	return f
}

// Apply is called by Raft for one entry.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries and then shows the new state. The answer
// to each is its commands' []cluster.Result, or the error that stopped the FSM.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	var events []Event
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			continue
		}
		if f.failed != nil {
			out[i] = f.failed
			continue
		}
		results, err := f.applyEntry(l, &events)
		if err != nil {
			f.stop(err)
			out[i] = err
			continue
		}
		out[i] = results
	}
	if f.failed == nil {
		f.identify()
	}
	f.publish(events)
	f.applied.Store(logs[len(logs)-1].Index)
	f.updated.wake()
	return out
}

func (f *fsm) publish(events []Event) {
	f.published.Store(f.state.Snapshot())
	f.events.add(events)
}

// stop makes f refuse everything from here on.
func (f *fsm) stop(err error) {
	f.failed = err
	f.fail(err)
}

// identify reports the cluster's id when it first becomes known.
func (f *fsm) identify() {
	id := f.state.ClusterID()
	if id == "" || id == f.published.Load().ClusterID() {
		return
	}
	if err := f.onCluster(id); err != nil {
		f.stop(err)
	}
}

// applyEntry applies all commands of an entry, or none if one is not understood.
func (f *fsm) applyEntry(l *raft.Log, events *[]Event) (results []cluster.Result, err error) {
	var entry raftlogv1.Entry
	if err := proto.Unmarshal(l.Data, &entry); err != nil {
		return nil, fmt.Errorf("log entry %d is not readable: %w: restore this server's data, or let it rejoin with an empty directory", l.Index, err)
	}
	cmds := make([]cluster.Command, len(entry.GetCommands()))
	for i, b := range entry.GetCommands() {
		if cmds[i], err = cluster.DecodeCommand(b, entry.GetVersion()); err != nil {
			return nil, f.explain(l.Index, entry.GetVersion(), err)
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bug: log entry %d made Apply panic: %v: please report it with this trace:\n%s", l.Index, p, debug.Stack())
		}
	}()
	results = make([]cluster.Result, len(cmds))
	for i, cmd := range cmds {
		results[i] = f.state.Apply(l.Index, cluster.Time(entry.GetProposedUnixNs()), cmd)
		for _, c := range results[i].Changes {
			*events = append(*events, eventOf(f.state, l.Index, c))
		}
	}
	return results, nil
}

func (f *fsm) explain(index uint64, version uint32, err error) error {
	var unknown *cluster.UnknownCommandError
	switch {
	case version > cluster.Version:
		return fmt.Errorf("log entry %d is in encoding %d, but %s knows only up to %d: run the release that the other servers run: %w", index, version, f.release, cluster.Version, err)
	case errors.As(err, &unknown):
		return fmt.Errorf("log entry %d cannot be applied by %s: %w", index, f.release, err)
	default:
		return fmt.Errorf("log entry %d is not readable by %s: %w: restore this server's data, or let it rejoin with an empty directory", index, f.release, err)
	}
}

// Snapshot returns the published state: nothing is copied. A stopped FSM
// refuses, or the snapshot would hide the entry that it stopped at.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.failed != nil {
		return nil, f.failed
	}
	return &snapshot{state: f.published.Load()}, nil
}

// Restore replaces the state by a snapshot's.
func (f *fsm) Restore(r io.ReadCloser) error {
	if f.failed != nil {
		return f.failed
	}
	state, err := readSnapshot(r, f.release)
	if err != nil {
		return err
	}
	f.state = state
	f.identify()
	if f.failed != nil {
		return f.failed
	}
	f.published.Store(f.state.Snapshot())
	f.events.reset(state.Index())
	f.applied.Store(max(f.applied.Load(), state.Index()))
	f.updated.wake()
	return nil
}
