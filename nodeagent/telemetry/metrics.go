package telemetry

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// Metrics are the agent's series; safe for concurrent use.
type Metrics struct {
	snapshot func() Snapshot
	gauges   gauges
	rings    rings
	launches *prometheus.CounterVec
	exits    *prometheus.CounterVec
	copies
}

// gauges describe what a scrape computes from the snapshot.
type gauges struct {
	util, memUsed, memTotal, power, temp, smClock, healthy, held *prometheus.Desc

	gpus, workers, connected, storage, probe *prometheus.Desc
}

// New registers the agent's series with reg; node is the node's name, a label on each. snapshot is called at
// every scrape, from any goroutine, and must not block. It fails if reg has such series already.
func New(reg prometheus.Registerer, node string, snapshot func() Snapshot) (*Metrics, error) {
	if node == "" || snapshot == nil {
		return nil, errors.New("agent metrics need a node name and a snapshot function")
	}
	constant := prometheus.Labels{"node": node}
	m := &Metrics{
		snapshot: snapshot,
		gauges:   newGauges(constant),
		rings:    newRings(constant),
		launches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gangline_agent_worker_launches_total", ConstLabels: constant,
			Help: "Attempts to start a worker since the agent started, by outcome: started, failed, adopted.",
		}, []string{"outcome"}),
		exits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gangline_agent_worker_exits_total", ConstLabels: constant,
			Help: "Workers that ended since the agent started, by outcome: succeeded, failed, killed, stopped, lost.",
		}, []string{"outcome"}),
	}
	m.copies = newCopies(constant)
	for _, l := range launches {
		m.launches.WithLabelValues(string(l))
	}
	for _, e := range exits {
		m.exits.WithLabelValues(string(e))
	}
	for _, c := range []prometheus.Collector{m.launches, m.exits, m.pushes, m.pushedBytes, collector{m}} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register agent metrics of node %s: %w", node, err)
		}
	}
	return m, nil
}

func newGauges(constant prometheus.Labels) gauges {
	perGPU := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("gangline_gpu_"+name, help, []string{"uuid", "gpu", "type"}, constant)
	}
	perNode := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gangline_"+name, help, labels, constant)
	}
	return gauges{
		util:     perGPU("utilization_ratio", "Share of the last sampling period in which a kernel ran on the GPU, from 0 to 1."),
		memUsed:  perGPU("memory_used_bytes", "Device memory in use, in bytes."),
		memTotal: perGPU("memory_total_bytes", "Size of the device memory, in bytes."),
		power:    perGPU("power_watts", "Power draw of the board, in watts."),
		temp:     perGPU("temperature_celsius", "Temperature of the GPU die, in degrees Celsius."),
		smClock:  perGPU("sm_clock_hertz", "Clock of the streaming multiprocessors, in hertz."),
		healthy:  perGPU("healthy", "1 if new work may use the GPU, 0 if not."),
		held:     perGPU("held_ratio", "Part of the GPU that workers on the node hold, from 0 to 1."),
		gpus:     perNode("node_gpus", "GPUs of the node by state: free, held by a worker in whole or in part, or unhealthy and not held.", "state"),
		workers:  perNode("agent_workers", "Workers on the node by state: running, stopping, exited and not yet acknowledged, lost.", "state"),
		connected: perNode("agent_connected",
			"1 if the agent's stream to the scheduler is up, 0 if not."),
		storage: perNode("agent_storage_healthy", "1 if a probe of the checkpoints' storage found nothing wrong, 0 if it did, or does not end."),
		probe:   perNode("agent_storage_probe_seconds", "How long the last probe of the checkpoints' storage took that ended: a small durable write, in seconds."),
	}
}

// Launched counts one attempt to start a worker.
func (m *Metrics) Launched(outcome Launch) { m.launches.WithLabelValues(string(outcome)).Inc() }

// Exited counts one worker's end.
func (m *Metrics) Exited(outcome Exit) { m.exits.WithLabelValues(string(outcome)).Inc() }

// collector keeps Prometheus' methods out of Metrics' own.
type collector struct{ m *Metrics }

// Describe names every gauge.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	g := c.m.gauges
	for _, d := range []*prometheus.Desc{
		g.util, g.memUsed, g.memTotal, g.power, g.temp, g.smClock, g.healthy, g.held, g.gpus, g.workers, g.connected, g.storage, g.probe,
	} {
		out <- d
	}
	c.m.rings.describe(out)
}

// Collect computes the gauges from one snapshot.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s, g := c.m.snapshot(), c.m.gauges
	samples := make(map[string]gpu.Sample, len(s.Samples))
	for _, sample := range s.Samples {
		samples[sample.UUID] = sample
	}
	states := make(map[string]int, len(gpuStates))
	seen := make(map[string]bool, len(s.GPUs))
	for _, card := range s.GPUs {
		if seen[card.UUID] { // a repeated series would fail the whole scrape
			continue
		}
		seen[card.UUID] = true
		states[stateOf(card, s.Held)]++
		g.collectGPU(out, card, samples[card.UUID])
		gauge(out, g.held, float64(s.Held[card.UUID])/1000, card.UUID, strconv.Itoa(card.Index), card.Type)
	}
	for _, state := range gpuStates {
		gauge(out, g.gpus, float64(states[state]), state)
	}
	for _, state := range workerStates {
		gauge(out, g.workers, float64(s.Workers[state]), string(state))
	}
	gauge(out, g.connected, boolean(s.Connected))
	c.m.rings.collect(out, s.Rings)
	gauge(out, g.storage, boolean(s.Storage.Problem == ""))
	gauge(out, g.probe, s.Storage.Took.Seconds())
}

// collectGPU emits what one GPU reported; sample is empty for a GPU without a reading.
func (g gauges) collectGPU(out chan<- prometheus.Metric, card gpu.GPU, sample gpu.Sample) {
	labels := []string{card.UUID, strconv.Itoa(card.Index), card.Type}
	gauge(out, g.healthy, boolean(card.Health.Healthy), labels...)
	if card.MemBytes > 0 {
		gauge(out, g.memTotal, float64(card.MemBytes), labels...)
	}
	if sample.MemUsedBytes != nil {
		gauge(out, g.memUsed, float64(*sample.MemUsedBytes), labels...)
	}
	for _, reading := range []struct {
		desc  *prometheus.Desc
		value *float64
		unit  float64 // what one unit of the reading is in the series' unit
	}{
		{g.util, sample.UtilPct, 0.01},
		{g.power, sample.PowerWatts, 1},
		{g.temp, sample.TempCelsius, 1},
		{g.smClock, sample.SMClockMHz, 1e6},
	} {
		if reading.value != nil {
			gauge(out, reading.desc, *reading.value*reading.unit, labels...)
		}
	}
}

func stateOf(card gpu.GPU, held map[string]int) string {
	switch {
	case held[card.UUID] > 0:
		return gpuHeld
	case !card.Health.Healthy:
		return gpuUnhealthy
	default:
		return gpuFree
	}
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
