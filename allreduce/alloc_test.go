package allreduce_test

import (
	"runtime"
	"testing"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// allocsPerCall is how many allocations all ranks together make for one all-reduce, in steady state: the background's are counted
// too, so it is below one where a call makes none.
func allocsPerCall(t *testing.T, groups []*allreduce.Group, length int) float64 {
	t.Helper()
	const warm, calls = 50, 400
	data := make([][]float32, len(groups))
	for r := range data {
		data[r] = make([]float32, length)
	}
	var before, after runtime.MemStats
	run := func(calls int) {
		onAll(t, groups, func(r int, g *allreduce.Group) error {
			for range calls {
				if err := g.AllReduce(t.Context(), allreduce.Of(data[r]), allreduce.Sum); err != nil {
					return err
				}
			}
			return nil
		})
	}
	run(warm)
	runtime.ReadMemStats(&before)
	run(calls)
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / calls
}

// TestCallsAllocateNothing, on every path.
//
//nolint:paralleltest // it counts the allocations of the whole process
func TestCallsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget: run without it")
	}
	for _, length := range []int{1000, 200_000} {
		ring, _ := newRing(t, 3, allreduce.Config{})
		shared, _ := newSharing(t, 3, allreduce.Config{})
		for name, groups := range map[string][]*allreduce.Group{
			"memory links": ring, "shared memory": shared,
			"grpc": joinLoopback(grpclink.PathGRPC)(t, 3), "tcp": joinLoopback(grpclink.PathTCP)(t, 3), "unix": joinLoopback(grpclink.PathUnix)(t, 3),
		} {
			got := allocsPerCall(t, groups, length)
			closeAll(groups)
			if got >= 1 {
				t.Errorf("%s, %d elements: %.2f allocations for a call of three ranks, want none", name, length, got)
			}
		}
	}
}
