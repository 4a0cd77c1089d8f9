package control

import (
	"slices"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// BenchmarkWhy: why a job waits, who holds what it lacks, and its place among
// all that wait; without a forecast. Half of the questions are about jobs that
// wait, which the company's limit holds back; the other half about gangs of a
// queue without a limit, which must fit into one rack.
func BenchmarkWhy(b *testing.B) {
	c := newCity(b, benchNodes, benchPending)
	c.settle()
	var jobs []*cluster.Job
	c.s.EachPending(func(j *cluster.Job) bool {
		jobs = append(jobs, j)
		return true
	})
	c.chance.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
	for i := 1; i < len(jobs); i += 2 {
		spec := *jobs[i].Spec
		spec.Queue, spec.GPUs, spec.Preemptible = "guests", 128, true
		spec.Topology = cluster.TopologyWish{Level: "rack", Required: i%4 == 1}
		if i%4 == 3 {
			spec.GPUs = 8192
		}
		jobs[i] = &cluster.Job{ID: 1 << 40, Spec: &spec, User: jobs[i].User, State: cluster.Pending, SubmittedAt: c.now, PendingAt: c.now}
	}
	x := &c.st.index
	var took []time.Duration
	bound := map[string]int{}
	n := 0
	for b.Loop() {
		j := jobs[n%len(jobs)]
		n++
		began := time.Now() //nolint:forbidigo // a benchmark reads the clock
		ex := x.Explain(j)
		x.Position(j)
		took = append(took, time.Since(began)) //nolint:forbidigo // a benchmark reads the clock
		bound[ex.Binding.String()]++
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, "p99-us")
	if len(bound) < 2 {
		b.Errorf("all jobs wait for the same: %v", bound)
	}
}
