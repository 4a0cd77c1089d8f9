package faultfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// CrashMode says what becomes of changes that were not synced when the power went out.
type CrashMode int

const (
	// DropAll loses every unsynced name and every unsynced byte.
	DropAll CrashMode = iota
	// KeepNames keeps all names but only synced bytes: a file renamed before its content was synced is short or empty. Journaling file
	// systems do this.
	KeepNames
	// Some keeps, by chance, for each directory the first few of its unsynced changes, and for each file a part of its unsynced bytes,
	// possibly with a hole of zeros.
	Some
	// Killed loses nothing: only the process died. All that it wrote counts as durable from then on.
	Killed
)

// Crash cuts the power and starts again: open files are dead, and what was not synced fares as mode says. Whatever is left is durable. The
// plan is cleared and operations count from 1. rng is used by Some only; same seed, same outcome.
func (f *FS) Crash(mode CrashMode, rng *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.root.crash(mode, rng)
	f.plan, f.ops, f.out = Plan{}, 0, false
	f.life++
}

func (n *node) crash(mode CrashMode, rng *rand.Rand) {
	if !n.dir {
		data := n.durable
		switch mode {
		case Some:
			data = someBytes(n.durable, n.data, rng)
		case Killed:
			data = n.data
		case DropAll, KeepNames:
		}
		n.data, n.durable = data, data
		return
	}
	keep := 0
	switch mode {
	case DropAll:
	case KeepNames, Killed:
		keep = len(n.change)
	case Some:
		keep = rng.IntN(len(n.change) + 1)
	}
	for _, c := range n.change[:keep] {
		apply(n.kept, c)
	}
	n.names, n.change = maps.Clone(n.kept), nil
	for _, name := range slices.Sorted(maps.Keys(n.names)) { // in order, so that the seed decides all
		n.names[name].crash(mode, rng)
	}
}

// someBytes mixes the synced and the current content.
func someBytes(durable, data []byte, rng *rand.Rand) []byte {
	if slices.Equal(durable, data) {
		return durable
	}
	out := slices.Clone(data[:rng.IntN(len(data)+1)])
	if len(out) > 0 && rng.IntN(2) == 0 {
		hole := rng.IntN(len(out))
		clear(out[hole:min(len(out), hole+512)])
	}
	return out
}
