package forecast

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// bigTown is the cluster of scheduler/control's benchmarks: nodes of 8 GPUs in
// racks of 31, 500 queues each with a quota and a user, full, with a long queue.
func bigTown(b testing.TB, nodes, pending int) *town {
	b.Helper()
	const queues = 500
	w := &town{t: b, s: &cluster.State{}, st: control.NewStepper(control.DefaultConfig()), now: cluster.Time(1_000_000 * time.Hour), unchecked: true}
	w.apply(&cluster.Init{ClusterID: "bench", Version: cluster.Version})
	p := cluster.DefaultPolicy()
	p.Queues = append(p.Queues, cluster.QueuePolicy{Path: "all", Weight: 1000})
	for q := range queues {
		p.Queues = append(p.Queues, cluster.QueuePolicy{
			Path: fmt.Sprintf("all/q%03d", q), Weight: 1000, Quota: []cluster.TypeCount{{Type: "h100", GPUs: max(int64(nodes)*8*9/10/queues, 8)}},
		})
	}
	w.apply(&cluster.SetPolicy{Policy: p, Any: true})
	for i := range nodes {
		w.apply(&cluster.RegisterNode{Node: machine(fmt.Sprintf("node-%05d", i), 8, "h100", fmt.Sprintf("r%03d", i/31))})
	}
	chance := rand.New(rand.NewPCG(1, 2))
	submit := func() {
		sizes := []int32{1, 1, 1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 16, 16, 32, 64}
		q := chance.IntN(queues)
		s := spec(fmt.Sprintf("all/q%03d", q), sizes[chance.IntN(len(sizes))])
		if chance.IntN(200) == 0 {
			s.GPUs = min([]int32{128, 256, 512, 1024}[chance.IntN(4)], int32(nodes))
		}
		s.Preemptible = s.GPUs > 8 || chance.IntN(2) == 0
		if s.GPUs > 8 {
			s.Topology = cluster.TopologyWish{Level: "rack", Required: s.GPUs <= 64 && chance.IntN(2) == 0}
		}
		if chance.IntN(3) == 0 {
			s.TimeLimit = time.Duration(1+chance.IntN(4)) * 6 * time.Hour
		}
		w.apply(&cluster.SubmitJob{RequestID: fmt.Sprint("request-", w.index), User: fmt.Sprintf("user%03d", q), Spec: s})
	}
	fill := func() {
		for w.s.Count(cluster.Pending) < nodes/20 {
			for range max(nodes/20, 64) {
				submit()
			}
			w.settle()
		}
	}
	fill()
	// Some jobs end, so that the cluster knows how long jobs take.
	for range 30 {
		w.pass(10 * time.Minute)
		var ids []cluster.JobID
		w.s.EachHolding(func(j *cluster.Job) bool {
			ids = append(ids, j.ID)
			return true
		})
		for _, id := range ids {
			if chance.IntN(12) == 0 && w.s.Job(id).State.Holding() {
				w.exit(id, 0)
			}
		}
		w.settle()
		fill()
	}
	for w.s.Count(cluster.Pending) < pending {
		submit()
	}
	w.settle()
	return w
}

// BenchmarkForecast: a whole answer, with when and what would help. The first
// question, which reads the whole state, is not among those measured.
func BenchmarkForecast(b *testing.B) {
	for _, size := range []struct{ nodes, pending int }{{125, 1000}, {1250, 10_000}, {12_500, 100_000}} {
		b.Run(fmt.Sprintf("nodes=%d/pending=%d", size.nodes, size.pending), func(b *testing.B) {
			w := bigTown(b, size.nodes, size.pending)
			f := New(control.DefaultConfig())
			s := w.s.Snapshot()
			var ids []cluster.JobID
			s.EachPending(func(j *cluster.Job) bool {
				ids = append(ids, j.ID)
				return true
			})
			began := time.Now() //nolint:forbidigo // a benchmark reads the clock
			f.Look(s, w.now, Question{Job: ids[0], Quick: true})
			first := time.Since(began) //nolint:forbidigo // a benchmark reads the clock
			b.ReportMetric(float64(first.Milliseconds()), "first-ms")
			chance := rand.New(rand.NewPCG(3, 4))
			var took []time.Duration
			known, runs := 0, 0
			for b.Loop() {
				began := time.Now() //nolint:forbidigo // a benchmark reads the clock
				a := f.Look(s, w.now, Question{Job: ids[chance.IntN(len(ids))]}).Answer()
				spent := time.Since(began) //nolint:forbidigo // a benchmark reads the clock
				took = append(took, spent)
				runs += a.Start.Runs
				if a.Start.P50 != 0 {
					known++
				}
				if testing.Verbose() {
					b.Logf("%4d ms of %d runs, place %d of %d: %s | %s", spent.Milliseconds(), a.Start.Runs, a.Place, a.Of, a.Start.Text(a.Now), a.Summary())
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "max-ms")
			b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
			b.ReportMetric(float64(known)/float64(len(took)), "known")
			b.ReportMetric(float64(runs)/float64(len(took)), "runs")
		})
	}
}
