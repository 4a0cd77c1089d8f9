package sim

import (
	"bytes"
	"fmt"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Cadence of the checks of the log, in entries. Small, because a difference is best found near its cause; multiplied
// as the state grows, because they cost time in proportion to it (see fullEvery).
const (
	hashEach     = 64  // all servers catch up and compare their states' hashes
	snapshotEach = 256 // a server is snapshotted; at the next one, it is rebuilt from it and the entries since
	maxLag       = 48  // entries that a follower may be behind
)

// entry is one entry of the log: the bytes of its commands, as on disk.
type entry struct {
	index uint64
	at    cluster.Time
	cmds  [][]byte
}

// server is one copy of the state.
type server struct {
	state   *cluster.State
	applied uint64 // index of the last entry applied
}

// servers is the replicated log with the states that follow from it. Only committed entries are in it: what a leader
// proposed and lost never gets here. It stands for the servers' Raft.
type servers struct {
	all      []*server
	leader   int
	entries  []entry // those after the snapshot
	index    uint64
	commands uint64
	snapshot []byte
	snapAt   uint64
	compares int
	restores int

	comparedAt uint64

	// deaf is a planted bug of tests: entries that a follower skips.
	deaf func(server int, index uint64) bool
}

func newServers(n int) *servers {
	s := &servers{}
	for range n {
		s.all = append(s.all, &server{state: &cluster.State{}})
	}
	return s
}

// state is the leader's.
func (s *servers) state() *cluster.State { return s.all[s.leader].state }

// lagger draws numbers in 0..n-1.
type lagger interface{ IntN(n int) int }

// commit appends an entry and applies it on the leader, calling look before and after each command. Followers apply
// it then or later.
func (s *servers) commit(at cluster.Time, cmds []cluster.Command, rng lagger, look func(cluster.Command, func() cluster.Result) error) ([]cluster.Result, error) {
	s.index++
	e := entry{index: s.index, at: at}
	for _, c := range cmds {
		e.cmds = append(e.cmds, cluster.AppendCommand(nil, c))
	}
	s.entries = append(s.entries, e)
	s.commands += uint64(len(cmds))
	lead := s.all[s.leader]
	results := make([]cluster.Result, 0, len(cmds))
	for _, b := range e.cmds {
		cmd, err := cluster.DecodeCommand(b, cluster.Version)
		if err != nil {
			return nil, fmt.Errorf("entry %d does not survive the log: %w", e.index, err)
		}
		err = look(cmd, func() cluster.Result {
			results = append(results, lead.state.Apply(e.index, e.at, cmd))
			return results[len(results)-1]
		})
		if err != nil {
			return nil, err
		}
	}
	lead.applied = e.index
	for i, f := range s.all {
		if behind := s.index - f.applied; i != s.leader && (behind > maxLag || rng.IntN(4) == 0) {
			if err := s.catchUp(i); err != nil {
				return nil, err
			}
		}
	}
	return results, s.audit(rng)
}

// catchUp applies on one server what it has not applied yet.
func (s *servers) catchUp(i int) error {
	f := s.all[i]
	for k := range s.entries {
		e := &s.entries[k]
		if e.index <= f.applied {
			continue
		}
		f.applied = e.index
		if s.deaf != nil && s.deaf(i, e.index) {
			continue
		}
		for _, b := range e.cmds {
			cmd, err := cluster.DecodeCommand(b, cluster.Version)
			if err != nil {
				return fmt.Errorf("server %d, entry %d: %w", i, e.index, err)
			}
			f.state.Apply(e.index, e.at, cmd)
		}
	}
	return nil
}

// audit compares and restores states when it is time to.
func (s *servers) audit(rng lagger) error {
	factor := uint64(1 + (s.state().Jobs()+s.state().Nodes())/fullEvery)
	switch {
	case s.index-s.snapAt >= snapshotEach*factor:
		return s.restoreAndSnapshot(rng.IntN(len(s.all)))
	case s.index-s.comparedAt >= hashEach*factor:
		return s.compare()
	}
	return nil
}

// compare lets all servers catch up and compares their states.
func (s *servers) compare() error {
	s.compares++
	s.comparedAt = s.index
	want := s.state().Hash()
	for i := range s.all {
		if err := s.catchUp(i); err != nil {
			return err
		}
		if got := s.all[i].state.Hash(); got != want {
			return fmt.Errorf("states differ at index %d: server %d has hash %016x, leader %d has %016x", s.index, i, got, s.leader, want)
		}
	}
	return nil
}

// restoreAndSnapshot rebuilds one server from the last snapshot and the entries since, compares it with the leader,
// then takes a new snapshot and drops the entries that nobody needs.
func (s *servers) restoreAndSnapshot(victim int) error {
	s.restores++
	if s.snapshot != nil {
		restored, err := cluster.Decode(s.snapshot, cluster.Version)
		if err != nil {
			return fmt.Errorf("snapshot of index %d: %w", s.snapAt, err)
		}
		if err := restored.Check(); err != nil {
			return fmt.Errorf("snapshot of index %d: %w", s.snapAt, err)
		}
		if victim != s.leader {
			s.all[victim] = &server{state: restored, applied: s.snapAt}
		}
	}
	if err := s.compare(); err != nil {
		return fmt.Errorf("server %d was rebuilt from a snapshot: %w", victim, err)
	}
	var buf bytes.Buffer
	if err := s.state().Encode(func(b []byte) error { _, err := buf.Write(b); return err }); err != nil {
		return fmt.Errorf("snapshot of index %d: %w", s.index, err)
	}
	s.snapshot, s.snapAt = buf.Bytes(), s.index
	s.entries = s.entries[:0]
	return nil
}

// elect makes another server the leader: it first applies all that is committed.
func (s *servers) elect(i int) error {
	s.leader = i
	return s.catchUp(i)
}
