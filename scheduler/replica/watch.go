package replica

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
)

// Kinds of writes to the log's disk.
const (
	opAppend = iota
	opTruncate
	opStable
	opKinds
)

var opNames = [opKinds]string{"append", "truncate", "vote"} //nolint:gochecknoglobals // table

// diskWatch times the writes to the log store and remembers the first that
// failed: after that nothing is written any more, because what a failed fsync
// left behind is not known until the log is opened anew.
type diskWatch struct {
	fail    func(error)
	observe func(op string, d time.Duration)
	epoch   time.Time
	running atomic.Bool // Raft runs: errors go to fail, not to the caller alone
	busy    [opKinds]atomic.Int64
	broken  atomic.Pointer[error]
}

func newDiskWatch(fail func(error), observe func(string, time.Duration)) *diskWatch {
	return &diskWatch{fail: fail, observe: observe, epoch: time.Now()}
}

// do runs one write.
func (w *diskWatch) do(op int, write func() error) error {
	if err := w.broken.Load(); err != nil {
		return *err
	}
	start := time.Since(w.epoch)
	w.busy[op].Store(int64(start) + 1)
	err := write()
	w.busy[op].Store(0)
	w.observe(opNames[op], time.Since(w.epoch)-start)
	if err == nil {
		return nil
	}
	if errors.Is(err, types.ErrSealed) {
		err = fmt.Errorf("no new log file could be made, most likely because the disk is full: %w", err)
	}
	err = fmt.Errorf("log store: %s: %w: this server stops; nothing acknowledged is lost: make room on the disk or replace it, then start the server again", opNames[op], err)
	if !w.broken.CompareAndSwap(nil, &err) {
		err = *w.broken.Load()
	}
	if w.running.Load() {
		w.fail(err)
	}
	return err
}

// stuckFor returns how long the longest write in progress has taken.
func (w *diskWatch) stuckFor() time.Duration {
	var longest time.Duration
	now := time.Since(w.epoch)
	for i := range w.busy {
		if since := w.busy[i].Load(); since != 0 {
			longest = max(longest, now-time.Duration(since))
		}
	}
	return longest
}

// watchedLogs is a log store under watch.
type watchedLogs struct {
	raft.LogStore
	watch *diskWatch
}

// IsMonotonic passes the inner store's answer on: Raft truncates accordingly.
func (s *watchedLogs) IsMonotonic() bool {
	m, ok := s.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// StoreLog appends one entry.
func (s *watchedLogs) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries.
func (s *watchedLogs) StoreLogs(l []*raft.Log) error {
	return s.watch.do(opAppend, func() error { return s.LogStore.StoreLogs(l) })
}

// DeleteRange truncates the log at its head or tail.
func (s *watchedLogs) DeleteRange(first, last uint64) error {
	return s.watch.do(opTruncate, func() error { return s.LogStore.DeleteRange(first, last) })
}

// watchedStable is a store of term and vote under watch.
type watchedStable struct {
	raft.StableStore
	watch *diskWatch
}

// Set stores a value.
func (s *watchedStable) Set(k, v []byte) error {
	return s.write(func() error { return s.StableStore.Set(k, v) })
}

// SetUint64 stores a number.
func (s *watchedStable) SetUint64(k []byte, v uint64) error {
	return s.write(func() error { return s.StableStore.SetUint64(k, v) })
}

// write ends Raft's goroutine on an error. Raft would panic and hide the
// reason; ended, it votes and leads no more, and the failure that is already
// reported stops the process in order.
func (s *watchedStable) write(f func() error) error {
	err := s.watch.do(opStable, f)
	if err != nil && s.watch.running.Load() {
		runtime.Goexit()
	}
	return err
}

// runWatchdog looks for a disk that hangs. Raft's leader would go on sending
// heartbeats and block the cluster for ever (hashicorp/raft#503). A leader whose
// write ends late hands leadership over; while it hangs, its Raft loop hears no
// such request, and the server has to stop. A server that is alone waits: there
// is nobody to hand over to, and its workers and readers lose nothing meanwhile.
func (r *Replica) runWatchdog() {
	tick := time.NewTicker(r.cfg.DiskStall / 8)
	defer tick.Stop()
	slow, alone := false, len(r.cfg.Servers) == 1
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		stuck := r.disk.stuckFor()
		leads := r.leading.Load() != nil
		switch {
		case stuck < r.cfg.DiskStall:
			if slow && alone {
				r.log.Warn("the log's disk goes on", "dir", r.cfg.Dir)
			} else if slow && leads {
				r.log.Warn("the log's disk is slow: handing leadership over", "dir", r.cfg.Dir)
				if err := r.yield(); err != nil {
					r.log.Warn("leadership could not be handed over", "error", err)
				}
			}
			slow = false
		case alone:
			if !slow {
				r.log.Error("a write to the log has not finished: nothing is accepted until it has; check the disk", "for", stuck.Round(time.Millisecond), "dir", r.cfg.Dir)
			}
			slow = true
		case leads && stuck >= r.cfg.DiskStall+transferTimeout, stuck >= followerPatience*r.cfg.DiskStall:
			r.fail(fmt.Errorf("a write to the log has not finished for %s: this server stops so that another can lead: check the disk under %s", stuck.Round(time.Millisecond), r.cfg.Dir))
			return
		default:
			slow = true
		}
	}
}

// followerPatience is how many times longer a follower's disk may hang than a
// leader's: it blocks nobody else.
const followerPatience = 5

// yield tries to hand leadership over in transferTimeout.
func (r *Replica) yield() error {
	ctx, cancel := context.WithTimeout(context.Background(), transferTimeout)
	defer cancel()
	err := r.TransferLeadership(ctx)
	var not *NotLeaderError
	if errors.As(err, &not) {
		return nil
	}
	return err
}
