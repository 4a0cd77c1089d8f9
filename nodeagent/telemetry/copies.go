package telemetry

import "github.com/prometheus/client_golang/prometheus"

// copies count what goes to the object store.
type copies struct {
	pushes      *prometheus.CounterVec
	pushedBytes prometheus.Counter
}

func newCopies(constant prometheus.Labels) copies {
	c := copies{
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gangline_agent_checkpoint_pushes_total", ConstLabels: constant,
			Help: "Attempts to copy a checkpoint to the object store since the agent started, by outcome: done, failed.",
		}, []string{"outcome"}),
		pushedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gangline_agent_checkpoint_pushed_bytes_total", ConstLabels: constant,
			Help: "Bytes of checkpoints that were copied to the object store since the agent started.",
		}),
	}
	for _, outcome := range []string{"done", "failed"} {
		c.pushes.WithLabelValues(outcome)
	}
	return c
}

// Pushed counts one attempt to copy a checkpoint of so many bytes.
func (m *Metrics) Pushed(bytes int64, ok bool) {
	if !ok {
		m.pushes.WithLabelValues("failed").Inc()
		return
	}
	m.pushes.WithLabelValues("done").Inc()
	m.pushedBytes.Add(float64(bytes))
}
