package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Local is what an agent knows of checkpoints on its node's own disk.
type Local struct {
	Waiting int64 // bytes of the node's shards that are not known to be safe on the shared storage
	Safe    int64 // of those that are
	Copies  int64 // of other nodes' shards
	Drained int64 // that were written to the shared storage since the agent started
}

// RegisterLocal registers the series of an agent that keeps checkpoints on its node's disk. read is called at every scrape and must not block.
func RegisterLocal(reg prometheus.Registerer, node string, read func() Local) error {
	bytes := func(what string, of func(Local) int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gangline_agent_checkpoint_local_bytes", ConstLabels: prometheus.Labels{"node": node, "what": what},
			Help: "Checkpoints on the node's own disk, in bytes: waiting for the shared storage, safe there too, copies of other nodes' shards.",
		}, func() float64 { return float64(of(read())) })
	}
	all := []prometheus.Collector{
		bytes("waiting", func(l Local) int64 { return l.Waiting }),
		bytes("safe", func(l Local) int64 { return l.Safe }),
		bytes("copies", func(l Local) int64 { return l.Copies }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "gangline_agent_checkpoint_drained_bytes_total", ConstLabels: prometheus.Labels{"node": node},
			Help: "Bytes of checkpoints copied from the node's own disk to the shared storage since the agent started.",
		}, func() float64 { return float64(read().Drained) }),
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register local checkpoint metrics of node %s: %w", node, err)
		}
	}
	return nil
}
