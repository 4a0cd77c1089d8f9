package api

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"slices"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// meeting gathers the addresses at which the members of one formation of an
// epoch await each other. Agents repeat them in each report, so that a new leader
// gathers them again.
type meeting struct {
	epoch     cluster.Epoch
	formation int32
	members   []cluster.Rank // in the ring's order
	addresses []string       // by place in members, "" until known
	shares    [][]byte       // by place, of the secret
	missing   int
	shared    bool // whether addresses was given out
}

// lastProgress is what rank 0 last said.
type lastProgress struct {
	epoch    cluster.Epoch
	progress *cluster.Progress
	problem  string // with its checkpoints; "": none
	pace     string // how often it is told to save, and why; "": it has not asked
}

// gather takes the rendezvous addresses and the progress from the last report of
// an agent's stream, and wakes the agents of each gang that is now complete. Of a
// stream that another one has replaced it takes nothing: that knows more, and an
// old address would be given to ranks that wait for the new one.
func (h *Hub) gather(a *agent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	node, workers := a.id, a.workers
	if h.agents[node] != a {
		return
	}
	// Read under mu: if a job ends after this, dispatch will drop what is noted here.
	st := h.cfg.Replica.State()
	for _, s := range workers {
		k := s.GetKey()
		j := st.Job(cluster.JobID(k.GetJobId()))
		if control.WorkerOn(st, node, keyOf(k)) == nil {
			continue
		}
		if k.GetRank() == 0 && (s.GetProgress() != nil || s.GetCheckpointProblem() != "" || s.GetCheckpointPace() != "" || h.progress[j.ID].problem != "") {
			h.progress[j.ID] = lastProgress{
				epoch: j.Epoch, progress: progressFromProto(s.GetProgress()), problem: cutText(s.GetCheckpointProblem(), cluster.MaxReason),
				pace: cutText(s.GetCheckpointPace(), cluster.MaxReason),
			}
		}
		h.hearRing(j, k.GetRank(), s.GetRing())
		h.hearLocal(j, s)
		if s.GetState() != agentv1.WorkerState_WORKER_STATE_RUNNING || !usableAddress(s.GetRendezvousAddress()) {
			continue
		}
		if f := j.Formation(); s.GetRendezvousMet() != f && (s.GetRendezvousMet() != 0 || s.GetRendezvousLeast() > f) {
			continue // that address was for another formation
		}
		if h.arrive(j, k.GetRank(), s.GetRendezvousAddress(), s.GetRendezvousShare()) {
			for _, id := range j.NodeRanks {
				if other := h.agents[id]; other != nil {
					other.poke()
				}
			}
		}
	}
}

// arrive notes one rank's address and its share of the secret. It reports whether the gang's addresses are
// complete and were not so before, or differently. The caller holds mu.
func (h *Hub) arrive(j *cluster.Job, rank int32, address string, share []byte) (complete bool) {
	m := h.meetings[j.ID]
	if m == nil || m.epoch != j.Epoch || m.formation != j.Formation() {
		members := j.Members()
		m = &meeting{
			epoch: j.Epoch, formation: j.Formation(), members: members,
			addresses: make([]string, len(members)), shares: make([][]byte, len(members)), missing: len(members),
		}
		h.meetings[j.ID] = m
	}
	place := slices.Index(m.members, cluster.Rank(rank))
	if place < 0 {
		return false // it is to join, or was given up
	}
	share = share[:min(len(share), maxShare)]
	if m.addresses[place] == address && bytes.Equal(m.shares[place], share) {
		return false
	}
	if m.addresses[place] == "" {
		m.missing--
	}
	m.shares[place] = share
	if m.shared { // orders that are being sent hold the list: it must not change under them
		m.addresses, m.shared = slices.Clone(m.addresses), false
	}
	m.addresses[place] = address
	return m.missing == 0
}

// peers returns the addresses of the members of an epoch's formation and their secret, nil until all are known.
func (h *Hub) peers(id cluster.JobID, epoch cluster.Epoch, formation int32) (addresses []string, secret []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.meetings[id]; m != nil && m.epoch == epoch && m.formation == formation && m.missing == 0 {
		m.shared = true
		return m.addresses, m.secret(id)
	}
	return nil, nil
}

// maxShare bounds a rank's share of the secret.
const maxShare = 64

// secret is made of the shares of all ranks alone, so that a new leader, whom the agents tell the same shares, gives out the same one:
// ranks that heard of it before and after know each other. It is nil if one gave no share.
func (m *meeting) secret(id cluster.JobID) []byte {
	sum := sha256.New()
	fmt.Fprintf(sum, "gangline ring secret 1: job %d epoch %d formation %d", id, m.epoch, m.formation)
	for place, share := range m.shares {
		if len(share) == 0 {
			return nil
		}
		fmt.Fprintf(sum, "; %d: %x", place, share)
	}
	return sum.Sum(nil)
}

func usableAddress(address string) bool {
	if address == "" || len(address) > maxAddress {
		return false
	}
	_, _, err := net.SplitHostPort(address)
	return err == nil
}
