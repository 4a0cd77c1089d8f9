package allreduce_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// resident is how much memory of the process is in the machine, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// TestManyCallsLeakNothing: after 100,000 calls in shared memory, and many by other ways, the process has as many goroutines as before and is no
// larger.
//
//nolint:paralleltest // it measures the whole process
func TestManyCallsLeakNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget, and takes memory of its own: run without it")
	}
	const allowed = 8 << 20 // what collections leave behind and take again
	shared, _ := newSharing(t, 2, allreduce.Config{})
	for name, c := range map[string]struct {
		groups        []*allreduce.Group
		calls, length int
	}{
		"shared memory": {shared, 100_000, 10}, "unix": {joinLoopback(grpclink.PathUnix)(t, 2), 1000, 10_000}, // the ring, as it is above SmallBytes
		"doubling": {joinLoopback(grpclink.PathTCP)(t, 3), 1000, 10}, "grpc": {joinLoopback(grpclink.PathGRPC)(t, 2), 500, 10_000},
	} {
		run := func(calls int) {
			onAll(t, c.groups, func(_ int, g *allreduce.Group) error {
				data := make([]float32, c.length)
				for range calls {
					if err := g.AllReduce(t.Context(), allreduce.Of(data), allreduce.Max); err != nil {
						return err
					}
				}
				return nil
			})
		}
		run(c.calls / 20)
		goroutines, before := runtime.NumGoroutine(), resident(t)
		run(c.calls)
		if grown := resident(t) - before; grown > allowed {
			t.Errorf("%s: %d calls left %d KiB behind", name, c.calls, grown>>10)
		}
		if now := runtime.NumGoroutine(); now > goroutines {
			t.Errorf("%s: %d goroutines before, %d after", name, goroutines, now)
		}
		closeAll(c.groups)
	}
}

// TestManyGroupsShareFairly: of 64 groups in one process that call as fast as they can, none is left behind: when the first has made its calls, each
// other has made a tenth of them at least.
//
//nolint:paralleltest // what else runs would take part in the race
func TestManyGroupsShareFairly(t *testing.T) {
	const many, calls = 64, 200
	groups := make([]*allreduce.Group, 2*many)
	var joining errgroup.Group
	for m := range many {
		joining.Go(func() error {
			pair, err := joinedBy(t.Context(), grpclink.PathUnix, 2)
			copy(groups[2*m:], pair)
			return err
		})
	}
	if err := joining.Wait(); err != nil {
		t.Fatal(err)
	}
	defer closeAll(groups)
	start := make(chan struct{})
	var ready sync.WaitGroup
	ready.Add(len(groups))
	go func() {
		ready.Wait()
		close(start)
	}()
	var made [many]atomic.Int64
	var done atomic.Bool
	var slowest atomic.Int64
	onAll(t, groups, func(i int, g *allreduce.Group) error {
		data, mine := make([]float32, 1000), i/2
		ready.Done()
		<-start
		for {
			stop := []int32{0} // both ranks of a group must stop after the same call
			if done.Load() {
				stop[0] = 1
			}
			if err := g.AllReduce(t.Context(), allreduce.Of(data), allreduce.Sum); err != nil {
				return err
			}
			if err := g.AllReduce(t.Context(), allreduce.Of(stop), allreduce.Max); err != nil || stop[0] == 1 {
				return err
			}
			if g.Rank() == 0 && made[mine].Add(1) == calls && done.CompareAndSwap(false, true) {
				least := int64(calls)
				for m := range made {
					least = min(least, made[m].Load())
				}
				slowest.Store(least)
			}
		}
	})
	if least := slowest.Load(); least < calls/10 {
		t.Errorf("when the first of %d groups had made %d calls another had made %d", many, calls, least)
	}
	t.Log(fmt.Sprint("the slowest had made ", slowest.Load()))
}
