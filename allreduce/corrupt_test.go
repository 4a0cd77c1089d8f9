package allreduce_test

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/memlink"
)

// tampered is a link that changes one of the data frames which are sent on it.
type tampered struct {
	allreduce.Link
	mu     sync.Mutex
	left   int // data frames before it
	change func(f *allreduce.Frame)
}

func (l *tampered) Send(f *allreduce.Frame) error {
	if f.Kind == allreduce.KindData {
		l.mu.Lock()
		if l.left--; l.left == -1 {
			l.change(f)
		}
		l.mu.Unlock()
	}
	return l.Link.Send(f)
}

// changes are what can be wrong with a frame, beside the values of elements, which the network's own checks are for.
var changes = map[string]func(f *allreduce.Frame){
	"kind":      func(f *allreduce.Frame) { f.Kind = 77 },
	"job":       func(f *allreduce.Frame) { f.Job++ },
	"epoch":     func(f *allreduce.Frame) { f.Epoch-- },
	"formation": func(f *allreduce.Frame) { f.Formation++ },
	"sequence":  func(f *allreduce.Frame) { f.Sequence++ },
	"index":     func(f *allreduce.Frame) { f.Index ^= 1 },
	"length":    func(f *allreduce.Frame) { f.Length += 4 },
	"call":      func(f *allreduce.Frame) { f.Call = 3 },
	"type":      func(f *allreduce.Frame) { f.Type = allreduce.Int32 },
	"operation": func(f *allreduce.Frame) { f.Op = allreduce.Max },
	"wire":      func(f *allreduce.Frame) { f.Wire = allreduce.WireInt8 },
	"tag":       func(f *allreduce.Frame) { f.Count = 9 },
	"shorter":   func(f *allreduce.Frame) { f.Data = f.Data[:len(f.Data)-1] },
	"empty":     func(f *allreduce.Frame) { f.Data = nil },
	"barrier":   func(f *allreduce.Frame) { f.Kind = allreduce.KindBarrier },
}

// TestCorruptFrameIsNeverASum: one changed frame anywhere in a call ends it with an error on all ranks, or on those that had not got all of their result
// yet; the others have the right one.
func TestCorruptFrameIsNeverASum(t *testing.T) {
	t.Parallel()
	names := make([]string, 0, len(changes))
	for name := range changes {
		names = append(names, name)
	}
	slices.Sort(names)
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(rt, "ranks")
		at := rapid.IntRange(0, n-1).Draw(rt, "rank")
		what := rapid.SampledFrom(names).Draw(rt, "what")
		length := 64 * n
		frames := 2 * (n - 1) * 4 // each rank's of one call: 64 elements of a segment in chunks of 16
		ends, groups := memlink.Ring(n), make([]*allreduce.Group, n)
		for r := range groups {
			var next allreduce.Link = ends[r].Next
			if r == at {
				next = &tampered{Link: next, left: rapid.IntRange(0, frames-1).Draw(rt, "frame"), change: changes[what]}
			}
			g, err := allreduce.New(allreduce.Config{Job: 7, Epoch: 3, Formation: 2, Rank: r, WorldSize: n, ChunkBytes: 64}, next, ends[r].Prev)
			if err != nil {
				rt.Fatal(err)
			}
			groups[r] = g
		}
		defer closeAll(groups)
		in := inputs(n, length, 1)
		got := clone(in)
		failed := 0
		for r, err := range reduceAll(t.Context(), groups, got) {
			var lost *allreduce.RankLostError
			switch {
			case err == nil:
				for i := range got[r] {
					if want := sumOf(in, i, n); got[r][i] != want {
						rt.Fatalf("%s: rank %d has %v for element %d, want %v, and no error", what, r, got[r][i], i, want)
					}
				}
			case errors.As(err, &lost):
				failed++
			default:
				rt.Fatalf("%s: rank %d: %v", what, r, err)
			}
		}
		if failed == 0 {
			rt.Fatalf("%s: nobody noticed", what)
		}
	})
}

// sumOf is an element of the sum, in the ring's order.
func sumOf(in [][]float32, i, n int) float32 {
	segment := i / (len(in[0]) / n)
	sum := in[(segment+1)%n][i]
	for k := 2; k <= n; k++ {
		sum += in[(segment+k)%n][i]
	}
	return sum
}
