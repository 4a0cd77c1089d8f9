package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gangline/gangline/scheduler/census"
	"github.com/gangline/gangline/scheduler/cluster"
)

// metrics are the server's own series; the replica and the API add theirs.
type metrics struct {
	stepSeconds prometheus.Histogram
	waitSeconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, state func() *cluster.State) *metrics {
	m := &metrics{
		stepSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gangline_step_seconds", Help: "Time that one control step took on the leader, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 4, 11),
		}),
		waitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gangline_job_wait_seconds", Help: "Time that a job was Pending before it got its GPUs, in seconds, observed on the leader.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 12),
		}),
	}
	reg.MustRegister(m.stepSeconds, m.waitSeconds, newStateCollector(state))
	return m
}

// stateCollector counts the objects of the newest state at each scrape.
type stateCollector struct {
	state func() *cluster.State
	jobs  *prometheus.Desc
	gpus  *prometheus.Desc
	nodes *prometheus.Desc
	off   *prometheus.Desc
	ended *prometheus.Desc
}

func newStateCollector(state func() *cluster.State) *stateCollector {
	return &stateCollector{
		state: state,
		jobs:  prometheus.NewDesc("gangline_jobs", "Jobs by state and queue. Final jobs are those still remembered.", []string{"state", "queue"}, nil),
		gpus:  prometheus.NewDesc("gangline_gpus", "GPUs by state (held, free, drained, unhealthy, lost) and type.", []string{"state", "type"}, nil),
		nodes: prometheus.NewDesc("gangline_nodes", "Nodes by state.", []string{"state"}, nil),
		off: prometheus.NewDesc("gangline_prediction_error_doublings",
			"Mean distance of the GPU time that jobs were expected to need from what they needed, in doublings (1: a factor of two), by GPUs of the job.", []string{"gpus"}, nil),
		ended: prometheus.NewDesc("gangline_prediction_jobs_total", "Jobs from which lengths were learned, by GPUs of the job.", []string{"gpus"}, nil),
	}
}

// maxQueues bounds the queue label; jobs of further queues count under "other".
const maxQueues = 1000

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.jobs
	ch <- c.gpus
	ch <- c.nodes
	ch <- c.off
	ch <- c.ended
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	type key struct{ a, b string }
	s := c.state()
	jobs, queues := map[key]int{}, map[string]bool{}
	s.EachJob(func(j *cluster.Job) bool {
		q := j.Spec.Queue
		if !queues[q] && len(queues) >= maxQueues {
			q = "other"
		}
		queues[q] = true
		jobs[key{j.State.String(), q}]++
		return true
	})
	gpus, nodes := map[key]int{}, map[string]int{cluster.NodeReady.String(): 0, cluster.NodeLost.String(): 0}
	s.EachNode(func(n *cluster.Node) bool {
		nodes[n.State.String()]++
		for i := range n.GPUs {
			gpus[key{gpuState(n, i), n.GPUs[i].Type}]++
		}
		return true
	})
	send := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for k, v := range jobs {
		send(c.jobs, v, k.a, k.b)
	}
	for k, v := range gpus {
		send(c.gpus, v, k.a, k.b)
	}
	for k, v := range nodes {
		send(c.nodes, v, k)
	}
	for class, p := range census.PredictionsBySize(s) {
		ch <- prometheus.MustNewConstMetric(c.off, prometheus.GaugeValue, p.Error, class)
		ch <- prometheus.MustNewConstMetric(c.ended, prometheus.CounterValue, float64(p.Jobs), class)
	}
}

func gpuState(n *cluster.Node, i int) string {
	switch {
	case n.State == cluster.NodeLost:
		return "lost"
	case n.GPUs[i].Held():
		return "held" // all or a share of it
	case n.GPUs[i].Healthy && n.Drain != nil:
		return "drained"
	case !n.Usable(i):
		return "unhealthy" // or a worker that was given up may still run on it
	default:
		return "free"
	}
}
