package replica

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// BenchmarkPropose measures submitted jobs per second and their latency, with
// real files and, for three servers, loopback connections in one process.
func BenchmarkPropose(b *testing.B) {
	for _, servers := range []int{1, 3} {
		for _, callers := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("servers=%d/callers=%d", servers, callers), func(b *testing.B) {
				benchmarkPropose(b, servers, callers)
			})
		}
	}
}

func benchmarkPropose(b *testing.B, servers, callers int) {
	box := newBox(b, servers)
	box.tune = func(c *Config) { c.segmentBytes = 0 }
	box.startAll()
	defer box.stopAll()
	l := waitLeader(b, box.replicas)
	ctx := context.Background()
	if _, _, err := l.Propose(ctx, node()); err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	latencies := make([][]time.Duration, callers)
	before := l.raft.LastIndex()
	var wg sync.WaitGroup
	b.ResetTimer()
	for c := range callers {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				began := time.Now()
				results, _, err := l.Propose(ctx, submitted(fmt.Sprint("job", n)))
				if err != nil || results[0].Code != cluster.OK {
					b.Errorf("propose: %v %+v", err, results)
					return
				}
				latencies[c] = append(latencies[c], time.Since(began))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	var all []time.Duration
	for _, l := range latencies {
		all = append(all, l...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(b.N)/float64(l.raft.LastIndex()-before), "jobs/entry")
}
