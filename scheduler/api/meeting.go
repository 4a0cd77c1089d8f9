package api

import (
	"net"
	"slices"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// meeting gathers the addresses at which the ranks of one epoch await each
// other. Agents repeat them in each report, so that a new leader gathers them
// again.
type meeting struct {
	epoch     cluster.Epoch
	addresses []string // by rank, "" until known
	missing   int
	shared    bool // whether addresses was given out
}

// lastProgress is what rank 0 last said.
type lastProgress struct {
	epoch    cluster.Epoch
	progress *cluster.Progress
}

// gather takes the rendezvous addresses and the progress from a node's report,
// and wakes the agents of each gang that is now complete.
func (h *Hub) gather(node cluster.NodeID, workers []*agentv1.WorkerStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Read under mu: if a job ends after this, dispatch will drop what is noted here.
	st := h.cfg.Replica.State()
	for _, s := range workers {
		k := s.GetKey()
		j := st.Job(cluster.JobID(k.GetJobId()))
		if control.WorkerOn(st, node, keyOf(k)) == nil {
			continue
		}
		if k.GetRank() == 0 && s.GetProgress() != nil {
			h.progress[j.ID] = lastProgress{epoch: j.Epoch, progress: progressFromProto(s.GetProgress())}
		}
		if s.GetState() != agentv1.WorkerState_WORKER_STATE_RUNNING || !usableAddress(s.GetRendezvousAddress()) {
			continue
		}
		if h.arrive(j, k.GetRank(), s.GetRendezvousAddress()) {
			for _, id := range j.NodeRanks {
				if a := h.agents[id]; a != nil {
					a.poke()
				}
			}
		}
	}
}

// arrive notes one rank's address. It reports whether the gang's addresses are
// complete and were not so before, or differently. The caller holds mu.
func (h *Hub) arrive(j *cluster.Job, rank int32, address string) (complete bool) {
	m := h.meetings[j.ID]
	if m == nil || m.epoch != j.Epoch {
		m = &meeting{epoch: j.Epoch, addresses: make([]string, len(j.Workers)), missing: len(j.Workers)}
		h.meetings[j.ID] = m
	}
	switch m.addresses[rank] {
	case address:
		return false
	case "":
		m.missing--
	}
	if m.shared { // orders that are being sent hold the list: it must not change under them
		m.addresses, m.shared = slices.Clone(m.addresses), false
	}
	m.addresses[rank] = address
	return m.missing == 0
}

// peers returns the addresses of an epoch's ranks, nil until all are known.
func (h *Hub) peers(id cluster.JobID, epoch cluster.Epoch) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.meetings[id]; m != nil && m.epoch == epoch && m.missing == 0 {
		m.shared = true
		return m.addresses
	}
	return nil
}

func usableAddress(address string) bool {
	if address == "" || len(address) > maxAddress {
		return false
	}
	_, _, err := net.SplitHostPort(address)
	return err == nil
}
