package allreduce_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gangline/gangline/allreduce"
)

// TestLeavingIsNoticedInSharedMemory: who waits in shared memory for a rank that has left is told so, whether it is a neighbour or not; and
// no rank that left after the last call that needed it is missed.
func TestLeavingIsNoticedInSharedMemory(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 5} {
		for _, length := range []int{0, 100, 1 << 20} {
			t.Run(fmt.Sprintf("%d ranks, %d elements", n, length), func(t *testing.T) {
				t.Parallel()
				groups, _ := newSharing(t, n, allreduce.Config{DetectTimeout: time.Minute})
				var wait sync.WaitGroup
				for r, g := range groups {
					wait.Go(func() {
						v := make([]float32, length)
						call := func() error {
							if length == 0 {
								return g.Barrier(t.Context())
							}
							return g.AllReduce(t.Context(), allreduce.Of(v), allreduce.Sum)
						}
						for range 20 {
							if err := call(); err != nil {
								t.Errorf("rank %d, while all are there: %v", r, err)
							}
						}
						if r == 1 {
							g.Leave()
						}
						var lost *allreduce.RankLostError
						if err := call(); r != 1 && (!errors.As(err, &lost) || lost.Rank != 1) {
							t.Errorf("rank %d, after rank 1 has left: %v", r, err)
						} else if r == 1 && !errors.Is(err, allreduce.ErrClosed) {
							t.Errorf("rank 1, which left: %v", err)
						}
					})
				}
				wait.Wait()
			})
		}
	}
}
