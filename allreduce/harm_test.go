package allreduce_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/internal/point"
	"github.com/gangline/gangline/allreduce/memlink"
)

// harm is what happens to a rank at a point of its work.
type harm int

const (
	killed harm = iota // its connections end, as those of a process do that is killed
	hung               // it takes and sends nothing more, and its connections stay, as under SIGSTOP or behind a network that drops all
)

func (h harm) String() string { return [...]string{"killed", "hung"}[h] }

// body is what a rank lives in: it counts the points that the rank passes, and does it harm at one of them.
type body struct {
	rank  int
	harm  harm
	at    int64       // the point at which it is harmed, from 1; 0: never
	on    point.Point // or the first point of this kind, if at is atKind
	count atomic.Int64
	freed chan struct{} // closed when the test is over

	mu     sync.Mutex
	struck time.Time // zero: not yet
	where  point.Point
	seen   map[point.Point]bool
	links  []*memlink.Link // its ends
}

// atKind harms a rank at the first point of a kind.
const atKind = -1

// probe is at a point. Whoever comes to one after the rank was harmed stays there.
func (b *body) probe(p point.Point) {
	n := b.count.Add(1)
	b.mu.Lock()
	b.seen[p] = true
	if n == b.at || b.at == atKind && p == b.on && b.struck.IsZero() {
		b.struck, b.where = time.Now(), p
		for _, l := range b.links {
			b.hurt(l)
		}
	}
	over := !b.struck.IsZero()
	b.mu.Unlock()
	if over {
		<-b.freed
	}
}

func (b *body) hurt(l *memlink.Link) {
	if b.harm == killed {
		_ = l.Close() // returns nil
	} else {
		l.Freeze()
	}
}

// own adds a link's end, and reports whether the rank still does anything.
func (b *body) own(l *memlink.Link) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.links = append(b.links, l)
	if !b.struck.IsZero() {
		b.hurt(l)
	}
	return b.struck.IsZero()
}

// fleet is a ring in memory whose ranks can be harmed.
type fleet struct {
	groups []*allreduce.Group
	bodies []*body
}

// everyConfig makes calls of few elements have several frames, of all kinds.
var everyConfig = allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect, ChunkBytes: 64, Window: 4, SmallBytes: 48}

// newFleet makes a ring of n ranks; plan says who is harmed, when and how.
func newFleet(t *testing.T, n, formation int, plan func(b *body)) *fleet {
	t.Helper()
	f := &fleet{groups: make([]*allreduce.Group, n)}
	ends := memlink.Ring(n)
	for r := range n {
		b := &body{rank: r, freed: make(chan struct{}), seen: map[point.Point]bool{}, links: []*memlink.Link{ends[r].Next, ends[r].Prev}}
		plan(b)
		f.bodies = append(f.bodies, b)
	}
	for r := range n {
		cfg := everyConfig
		cfg.Rank, cfg.WorldSize, cfg.Formation, cfg.Probe = r, n, uint32(formation), f.bodies[r].probe //nolint:gosec // small
		g, err := allreduce.New(cfg, ends[r].Next, ends[r].Prev)
		if err != nil {
			t.Fatal(err)
		}
		f.groups[r] = g
	}
	for r, g := range f.groups {
		g.Connect(func(ctx context.Context, to int, lane allreduce.Lane) (allreduce.Link, error) {
			mine, theirs := memlink.Pair()
			f.bodies[r].own(mine)
			if f.bodies[to].own(theirs) {
				f.groups[to].Accept(r, lane, theirs)
				return mine, nil
			}
			_ = mine.Close() // nobody answers
			select {
			case <-time.After(detect):
			case <-ctx.Done():
			}
			return nil, errors.New("nobody answers")
		})
	}
	return f
}

func (f *fleet) close() {
	for _, b := range f.bodies {
		close(b.freed)
	}
	closeAll(f.groups)
}

// live runs the program on all ranks and returns how each but the victim ended.
func (f *fleet) live(ctx context.Context) []error {
	errs := make([]error, len(f.groups))
	done := make(chan int)
	running := 0
	for r, g := range f.groups {
		if f.bodies[r].at == 0 {
			running++
		}
		go func() {
			for _, p := range parts {
				if err := p.run(ctx, g, r, len(f.groups)); err != nil {
					errs[r] = fmt.Errorf("%s: %w", p.name, err)
					break
				}
			}
			if f.bodies[r].at == 0 {
				done <- r
			}
		}()
	}
	for range running {
		<-done
	}
	return errs
}

// after says what is wrong with how survivors of losses ended, if anything: a call that went well has the right result, and one does not go well
// any more, with a lost rank's name, and in time.
func (f *fleet) after(ctx context.Context, errs []error, hit *sync.Map) error {
	var lost []int
	var last time.Time
	story := ""
	for _, b := range f.bodies {
		b.mu.Lock()
		if !b.struck.IsZero() {
			lost, last = append(lost, b.rank), b.struck
			story += fmt.Sprintf("rank %d was %v when %v; ", b.rank, b.harm, b.where)
			hit.Store(b.where, true)
		}
		b.mu.Unlock()
	}
	for r := range errs {
		if f.bodies[r].at != 0 {
			continue // it may still be at it, as far as it can tell
		}
		err := errs[r]
		if err == nil && len(lost) > 0 { // all parts were done, with the help of whoever is lost now
			err = f.groups[r].Barrier(ctx)
		}
		var named *allreduce.RankLostError
		switch took := time.Since(last); {
		case err == nil && len(lost) == 0:
		case errors.Is(err, errWrong), !errors.As(err, &named), !slices.Contains(lost, named.Rank):
			return fmt.Errorf("%srank %d: %w", story, r, cmp.Or(err, errors.New("all went well")))
		case took > detect+bound:
			return fmt.Errorf("%srank %d heard of it after %v", story, r, took)
		}
	}
	return nil
}
