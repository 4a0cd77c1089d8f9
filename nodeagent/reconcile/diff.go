package reconcile

import (
	"fmt"
	"slices"
)

// Diff returns what brings the node from what runs to what should run. workers are all that the node knows of,
// alive or ended; each key at most once. desired is nil as long as no leader has spoken: then nothing is done, for
// silence is no order.
//
// The actions may be carried out in any order and any part of them; calling Diff again with what then is gives the
// rest. They come stops first, each kind in the order of keys. The rules:
//
//   - A worker that the node knows, alive or ended, or whose end is acknowledged, is never launched (again).
//   - A worker of an epoch older than the job's newest, wanted or known here, is never launched.
//   - A launch waits while living workers hold so much of one of its GPUs that its own share does not fit beside them.
//     A worker without a share holds all of its GPUs.
//   - A living worker that is not desired, or of an older epoch than its job's desired one, is fenced: stopped
//     without a warning.
//   - A stop is repeated only if it is tighter than what the worker was told.
func Diff(desired *Desired, workers []Worker) []Action {
	if desired == nil {
		return nil
	}
	d := newDiff(desired, workers)
	var stops, acks []Action
	for _, w := range d.workers {
		if w.Alive {
			if stop, ok := d.stopFor(w); ok && (w.Stopping == nil || stop.Tighter(*w.Stopping)) {
				stops = append(stops, Action{Kind: Halt, Key: w.Key, Stop: stop})
			}
		} else if !w.Acknowledged && d.acked[w.Key] {
			acks = append(acks, Action{Kind: Acknowledge, Key: w.Key})
		}
	}
	return slices.Concat(stops, acks, d.starts())
}

// slotOf is one desired worker with its assignment's stop.
type slotOf struct {
	key   Key
	gpus  []string
	milli int
	stop  *Stop
}

// diff is the two sides, indexed. No map is ever walked.
type diff struct {
	slots   []slotOf // by key
	workers []Worker // by key
	wanted  map[Key]*Stop
	newest  map[uint64]uint64 // newest desired epoch of a job
	seen    map[uint64]uint64 // newest epoch of a job, desired or known here
	known   map[Key]bool
	acked   map[Key]bool
	busy    map[string]int // thousandths of GPUs that living workers hold
}

func newDiff(desired *Desired, workers []Worker) *diff {
	d := &diff{
		workers: slices.SortedFunc(slices.Values(workers), func(a, b Worker) int { return a.Key.Compare(b.Key) }),
		wanted:  map[Key]*Stop{},
		newest:  map[uint64]uint64{},
		seen:    map[uint64]uint64{},
		known:   map[Key]bool{},
		acked:   map[Key]bool{},
		busy:    map[string]int{},
	}
	for _, a := range desired.Assignments {
		d.newest[a.Job] = max(d.newest[a.Job], a.Epoch)
		d.seen[a.Job] = max(d.seen[a.Job], a.Epoch)
		for _, s := range a.Workers {
			key := Key{Job: a.Job, Epoch: a.Epoch, Rank: s.Rank}
			d.slots = append(d.slots, slotOf{key: key, gpus: s.GPUs, milli: s.Milli, stop: a.Stop})
			d.wanted[key] = a.Stop
		}
	}
	slices.SortStableFunc(d.slots, func(a, b slotOf) int { return a.key.Compare(b.key) })
	for _, k := range desired.Acknowledged {
		d.acked[k] = true
	}
	for _, w := range workers {
		d.seen[w.Key.Job] = max(d.seen[w.Key.Job], w.Key.Epoch)
		d.known[w.Key] = true
		if w.Alive {
			d.take(w.GPUs, w.Milli)
		}
	}
	return d
}

// stopFor returns how a living worker is to end; false: it may go on.
func (d *diff) stopFor(w Worker) (Stop, bool) {
	if newest := d.newest[w.Key.Job]; newest > w.Key.Epoch {
		return Stop{Why: fmt.Sprintf("job %d is at epoch %d by now", w.Key.Job, newest), Grace: FencedGrace}, true
	}
	stop, wanted := d.wanted[w.Key]
	if !wanted {
		return Stop{Why: "the scheduler no longer wants this worker here", Grace: FencedGrace}, true
	}
	if stop == nil {
		return Stop{}, false
	}
	return *stop, true
}

// starts returns a launch for each new slot whose GPUs have room for it, and a decline for each new slot that is to stop.
func (d *diff) starts() []Action {
	var out []Action
	for _, s := range d.slots {
		if d.known[s.key] || d.acked[s.key] || s.key.Epoch < d.seen[s.key.Job] {
			continue
		}
		if s.stop != nil {
			d.known[s.key] = true
			out = append(out, Action{Kind: Decline, Key: s.key, GPUs: s.gpus, Milli: s.milli, Stop: *s.stop})
			continue
		}
		if slices.ContainsFunc(s.gpus, func(uuid string) bool { return d.busy[uuid]+Share(s.milli) > WholeGPU }) {
			continue
		}
		d.known[s.key] = true
		d.take(s.gpus, s.milli)
		out = append(out, Action{Kind: Launch, Key: s.key, GPUs: s.gpus, Milli: s.milli})
	}
	return out
}

func (d *diff) take(gpus []string, milli int) {
	for _, uuid := range gpus {
		d.busy[uuid] += Share(milli)
	}
}

// Share is how much of a GPU a Milli stands for: 1..WholeGPU. What is not a share takes all, so that an order or a
// worker of which too little is known never shares a GPU by mistake.
func Share(milli int) int {
	if milli <= 0 || milli > WholeGPU {
		return WholeGPU
	}
	return milli
}

// Listed returns the keys of all desired workers in order, launched or not. The agent keeps what it knows of them,
// also when acknowledged, so that none is launched twice.
func (d *Desired) Listed() []Key {
	if d == nil {
		return nil
	}
	var keys []Key
	for _, a := range d.Assignments {
		for _, s := range a.Workers {
			keys = append(keys, Key{Job: a.Job, Epoch: a.Epoch, Rank: s.Rank})
		}
	}
	slices.SortFunc(keys, Key.Compare)
	return keys
}
