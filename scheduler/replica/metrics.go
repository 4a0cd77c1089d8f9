package replica

import (
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what Prometheus sees of a replica. They are counted always and
// shown if a registerer is given.
type metrics struct {
	commit   prometheus.Histogram
	entries  prometheus.Counter
	commands prometheus.Counter
	snapshot prometheus.Histogram
	store    *prometheus.HistogramVec

	registerer prometheus.Registerer
	registered []prometheus.Collector
}

func newMetrics() *metrics {
	buckets := prometheus.ExponentialBuckets(0.0001, 2, 16) // 0.1 ms to 3.3 s
	return &metrics{
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gangline_raft_commit_seconds", Help: "Time from append to commit and apply of an entry that this leader proposed, in seconds.", Buckets: buckets,
		}),
		entries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gangline_raft_entries_total", Help: "Entries that this server proposed and that committed.",
		}),
		commands: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gangline_raft_commands_total", Help: "Commands in these entries.",
		}),
		snapshot: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gangline_raft_snapshot_seconds", Help: "Time to write one snapshot, in seconds.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
		store: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gangline_raft_log_store_seconds", Help: "Time of one write to the log's disk, in seconds, by operation: append, truncate, vote.", Buckets: buckets,
		}, []string{"operation"}),
	}
}

func (m *metrics) committed(commands int, d time.Duration) {
	m.entries.Inc()
	m.commands.Add(float64(commands))
	m.commit.Observe(d.Seconds())
}

func (m *metrics) stored(op string, d time.Duration) {
	m.store.WithLabelValues(op).Observe(d.Seconds())
}

func (m *metrics) register(r *Replica) error {
	if r.cfg.Registerer == nil {
		return nil
	}
	m.registerer = r.cfg.Registerer
	for _, c := range []prometheus.Collector{m.commit, m.entries, m.commands, m.snapshot, m.store, newGauges(r)} {
		if err := m.registerer.Register(c); err != nil {
			return err
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
}

// gauges are read from the replica when Prometheus asks.
type gauges struct {
	r                                                  *Replica
	leader, term, applied, contact, peerLag, peerSnaps *prometheus.Desc
}

func newGauges(r *Replica) *gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &gauges{
		r:         r,
		leader:    desc("gangline_raft_is_leader", "1 if this server leads, else 0."),
		term:      desc("gangline_raft_term", "Raft's term; it rises with each election."),
		applied:   desc("gangline_raft_applied_index", "Index of the last entry applied on this server."),
		contact:   desc("gangline_raft_last_contact_seconds", "Seconds since this server last heard of the leader; 0 on the leader."),
		peerLag:   desc("gangline_raft_peer_lag_entries", "Entries that a follower lacks, by its own last word; on the leader only.", "server"),
		peerSnaps: desc("gangline_raft_peer_snapshots_total", "Whole states sent to a follower since this server started. One that keeps rising means a follower that cannot catch up.", "server"),
	}
}

// Describe lists the series.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.leader, g.term, g.applied, g.contact, g.peerLag, g.peerSnaps} {
		ch <- d
	}
}

// Collect reads the values.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	s := g.r.Status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	leads := 0.0
	if s.Role == "leader" {
		leads = 1
	}
	gauge(g.leader, leads)
	gauge(g.term, float64(s.Term))
	gauge(g.applied, float64(s.AppliedIndex))
	gauge(g.contact, s.LastContact.Seconds())
	for _, p := range s.Peers {
		gauge(g.peerLag, float64(p.Lag), p.ID)
		ch <- prometheus.MustNewConstMetric(g.peerSnaps, prometheus.CounterValue, float64(p.Snapshots), p.ID)
	}
}

// timedSnapshots measures how long snapshots take.
type timedSnapshots struct {
	raft.SnapshotStore
	m *metrics
}

// Create begins a snapshot; its Close ends the measurement.
func (s timedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, conf, confIndex, t)
	if err != nil {
		return nil, err
	}
	return &timedSink{SnapshotSink: sink, m: s.m, began: time.Now()}, nil
}

type timedSink struct {
	raft.SnapshotSink
	m     *metrics
	began time.Time
}

// Close finishes the snapshot.
func (s *timedSink) Close() error {
	err := s.SnapshotSink.Close()
	if err == nil {
		s.m.snapshot.Observe(time.Since(s.began).Seconds())
	}
	return err
}
