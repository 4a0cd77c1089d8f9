package telemetry

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// rings describe what workers tell of their collective calls.
type rings struct{ calls, bytes, busy *prometheus.Desc }

func newRings(constant prometheus.Labels) rings {
	perRank := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("gangline_ring_"+name, help, []string{"job", "rank"}, constant)
	}
	return rings{
		calls: perRank("calls_total", "Collective calls of a running worker in its epoch."),
		bytes: perRank("bytes_total", "Bytes of the vectors of a running worker's collective calls in its epoch."),
		busy: perRank("busy_seconds_total",
			"Time within a running worker's collective calls in its epoch, in seconds: waiting for other ranks, and moving and adding data. The rank with the least comes last."),
	}
}

func (r rings) describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{r.calls, r.bytes, r.busy} {
		out <- d
	}
}

func (r rings) collect(out chan<- prometheus.Metric, all []Ring) {
	type key struct {
		job  uint64
		rank int
	}
	seen := map[key]bool{}
	for i := range all {
		w := &all[i]
		k := key{w.Job, w.Rank}
		if seen[k] {
			continue // a repeated series would fail the whole scrape: an older epoch still ends
		}
		seen[k] = true
		job, rank := strconv.FormatUint(w.Job, 10), strconv.Itoa(w.Rank)
		counter(out, r.calls, float64(w.Calls), job, rank)
		counter(out, r.bytes, float64(w.Bytes), job, rank)
		counter(out, r.busy, w.Busy.Seconds(), job, rank)
	}
}

func counter(out chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}
