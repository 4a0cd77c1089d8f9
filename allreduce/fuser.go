package allreduce

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// DefaultBundleBytes is a few chunks for each of some ranks: beyond, a longer call is no more efficient.
const DefaultBundleBytes = 4 << 20

// bundlesInUse is how many bundles a fuser fills and has in flight: one that is filled, one that travels, one that waits to.
const bundlesInUse = 3

// FuserConfig says what a Fuser combines. All ranks give the same.
type FuserConfig struct {
	Type Type
	Op   Op
	// Wire is the form in which elements travel; see Wire. With one that loses some of the value the fuser keeps a Feedback for each bundle,
	// as long as bundles are as long as after the last Flush.
	Wire Wire
	// Bytes is the size of a bundle. Zero means DefaultBundleBytes. Too small, and each of many calls waits for a round of the ring;
	// too large, and the first call starts late. A vector of at least half of it travels by itself, without being copied.
	Bytes int
}

// Fuser packs small vectors into bundles, has each combined over all ranks by one call, and unpacks the result.
//
// Vectors have places 0, 1, 2 and so on, given to [Fuser.Add] in any order, every place once on every rank. Bundles are cut in the
// order of places alone, by lengths alone, so that all ranks cut alike; that they did is checked: a rank whose lengths differ breaks
// the ring with both bundles named. The bits of a sum depend on where in its bundle an element lies, so they are equal on all ranks, and
// in every run with the same lengths and Bytes.
//
// A bundle starts, with a tag of [Group.NextTag], as soon as all its vectors have been added. Other calls with tags may be started
// between, at the same places of the program on all ranks.
type Fuser struct {
	group *Group
	cfg   FuserConfig

	spare chan *bundle // that are not in use

	mu      sync.Mutex // guards what follows; held while a bundle is packed, or waits for a spare one
	early   map[int]Vector
	place   int // the next to pack
	open    *bundle
	flying  []*Handle   // since the last Flush
	made    int         // bundles
	past    []*Feedback // of the bundles and vectors sent, in their order
	failure error
}

// bundle is a buffer and which vectors lie in it.
type bundle struct {
	memory []byte
	used   int
	parts  []Vector
	sum    uint64 // of what lies where
}

// NewFuser returns a fuser for one type and operation. Close it before the group.
func NewFuser(g *Group, cfg FuserConfig) (*Fuser, error) {
	if cfg.Bytes == 0 {
		cfg.Bytes = DefaultBundleBytes
	}
	probe := asked{call: callAllReduce, vector: Vector{typ: cfg.Type}, op: cfg.Op}
	probe.vector.wire = cfg.Wire
	if _, err := g.form(&probe); err != nil {
		return nil, err
	}
	if err := probe.check(); err != nil {
		return nil, err
	}
	if cfg.Bytes < cfg.Type.Size() || cfg.Bytes > 1<<30 {
		return nil, fmt.Errorf("fuser: a bundle of %d bytes: must be %d to 1 GiB", cfg.Bytes, cfg.Type.Size())
	}
	cfg.Bytes -= cfg.Bytes % cfg.Type.Size()
	return &Fuser{group: g, cfg: cfg, early: map[int]Vector{}, spare: make(chan *bundle, bundlesInUse)}, nil
}

// Add gives the vector with a place; it must not be touched until Flush has returned. It may wait for a bundle that is in flight. It is
// safe for concurrent use. An error of the group is also Flush's.
func (f *Fuser) Add(place int, v Vector) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure != nil {
		return f.failure
	}
	if v.typ != f.cfg.Type {
		return fmt.Errorf("fuser: the vector with place %d is of %v, want %v", place, v.typ, f.cfg.Type)
	}
	if _, there := f.early[place]; there || place < f.place {
		return fmt.Errorf("fuser: place %d was given twice: each place is given once before Flush", place)
	}
	f.early[place] = v
	for {
		v, there := f.early[f.place]
		if !there {
			return nil
		}
		delete(f.early, f.place)
		f.place++
		if err := f.pack(v); err != nil {
			f.failure = err
			return err
		}
	}
}

// pack puts the next vector into a bundle.
func (f *Fuser) pack(v Vector) error {
	if len(v.data) >= f.cfg.Bytes/2 {
		if err := f.send(); err != nil {
			return err
		}
		h, err := f.group.StartAllReduce(f.group.NextTag(), f.over(v), f.cfg.Op)
		if err == nil {
			f.flying = append(f.flying, h)
		}
		return err
	}
	if f.open != nil && f.open.used+len(v.data) > f.cfg.Bytes {
		if err := f.send(); err != nil {
			return err
		}
	}
	if f.open == nil {
		b, err := f.buffer()
		if err != nil {
			return err
		}
		f.open = b
	}
	b := f.open
	copy(b.memory[b.used:], v.data)
	b.used += len(v.data)
	b.parts = append(b.parts, v)
	b.sum = (b.sum ^ uint64(len(v.data))) * fnvPrime
	return nil
}

// FNV-1a, over the parts' lengths instead of bytes: who packs otherwise has another sum.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// buffer returns an empty bundle, once there is one.
func (f *Fuser) buffer() (*bundle, error) {
	if f.made < bundlesInUse {
		memory, err := f.group.Alloc(f.cfg.Bytes)
		if err != nil {
			return nil, err
		}
		f.made++
		return &bundle{memory: memory, sum: fnvOffset}, nil
	}
	select {
	case b := <-f.spare:
		b.used, b.parts, b.sum = 0, b.parts[:0], fnvOffset
		return b, nil
	case <-f.group.ended:
		return nil, f.group.err
	}
}

// send starts the call of the open bundle.
func (f *Fuser) send() error {
	b := f.open
	f.open = nil
	if b == nil {
		return nil
	}
	h := &Handle{tag: f.group.NextTag(), asked: asked{
		kind: KindData, call: callAllReduce, vector: f.over(Vector{typ: f.cfg.Type, data: b.memory[:b.used]}), op: f.cfg.Op, mark: b.sum | bundleMark,
	}}
	h.after = func() { f.unpack(b) }
	h, err := f.group.begin(h)
	if err != nil {
		return err
	}
	f.flying = append(f.flying, h)
	return nil
}

// over gives the next vector that is sent its form, and the feedback that the one at its place had.
func (f *Fuser) over(v Vector) Vector {
	if !f.cfg.Wire.narrow() {
		return v.Over(f.cfg.Wire)
	}
	i := len(f.flying)
	if i == len(f.past) {
		f.past = append(f.past, nil)
	}
	if f.past[i] == nil || len(f.past[i].lost) != len(v.data) {
		f.past[i] = NewFeedback(v.Len())
	}
	return v.Over(f.cfg.Wire).With(f.past[i])
}

// unpack gives the result to the vectors.
func (f *Fuser) unpack(b *bundle) {
	at := 0
	for _, v := range b.parts {
		at += copy(v.data, b.memory[at:b.used])
	}
	clear(b.parts) // they are the caller's
	f.spare <- b   // there is room for all
}

// Flush starts what is packed and waits until all vectors hold their results; places begin at 0 again. An error is that of the first
// call that failed, ctx's, or that a place is missing; after the first two the fuser is of no use any more.
func (f *Fuser) Flush(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.early) > 0 {
		return fmt.Errorf("fuser: %d vectors were added, but none with place %d", len(f.early), f.place)
	}
	err := f.failure
	if err == nil {
		err = f.send()
	}
	f.place = 0
	for _, h := range f.flying {
		if err == nil {
			err = h.Wait(ctx)
		}
	}
	f.flying, f.failure = f.flying[:0], err
	return err
}

// Close gives the fuser's memory back. Nothing may be in flight: call it after Flush, or after the group's end.
func (f *Fuser) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.spare) > 0 {
		f.group.Free((<-f.spare).memory)
	}
	f.failure = errors.New("fuser: it was closed")
	return nil
}
