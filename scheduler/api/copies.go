package api

import (
	"time"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

const (
	// peersFor is how long the agents' peers are worked out for: after a change of leader all agents come within a moment.
	peersFor = time.Second
	// rackLabel is the agents' label for the rack; see nodeagent.LabelRack.
	rackLabel = "topology.gangline.dev/rack"
)

// copyPeers says which agent keeps copies of which node's checkpoints. It is memory of this leadership: what was copied is known to the agents.
type copyPeers struct {
	at time.Time // when it was worked out; zero: never
	to map[cluster.NodeID]string
}

// copiesTo gives the address of the agent that keeps copies of a node's checkpoints; "": none.
func (h *Hub) copiesTo(id cluster.NodeID) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.cfg.Clock(); h.copies.at.IsZero() || now.Sub(h.copies.at) >= peersFor {
		all := make([]*agentv1.Hello, 0, len(h.agents))
		for _, a := range h.agents { // any order will do
			all = append(all, a.hello)
		}
		h.copies = copyPeers{at: now, to: control.CopyPeers(keepersOf(all))}
	}
	return h.copies.to[id]
}

// keepersOf are the agents that keep copies.
func keepersOf(all []*agentv1.Hello) []control.Keeper {
	var out []control.Keeper
	for _, h := range all {
		if h.GetKeepsCopies() {
			out = append(out, control.Keeper{Node: cluster.NodeID(h.GetNodeId()), Rack: h.GetLabels()[rackLabel], Address: h.GetAddress()})
		}
	}
	return out
}

// lastLocal is what rank 0's agent last said of checkpoints on nodes' own disks.
type lastLocal struct {
	epoch cluster.Epoch
	local *schedulerv1.LocalCheckpoint // nil: all that was saved is on the shared storage
	lost  int64                        // step that was lost before the epoch began; 0: none
	older *schedulerv1.OlderStart      // nil: it did not begin from an older one than it had committed
}

// hearLocal notes what rank 0 has saved on nodes' own disks, and what was lost there. The caller holds mu.
func (h *Hub) hearLocal(j *cluster.Job, s *agentv1.WorkerStatus) {
	if s.GetKey().GetRank() != 0 {
		return
	}
	l := lastLocal{epoch: j.Epoch, lost: max(s.GetLostStep(), 0)}
	if c := s.GetLocalCheckpoint(); c != nil && c.GetStep() >= 0 {
		l.local = &schedulerv1.LocalCheckpoint{Step: c.GetStep(), Copied: c.GetCopied()}
	}
	if o := s.GetOlderStart(); o != nil {
		l.older = &schedulerv1.OlderStart{CommittedStep: max(o.GetCommittedStep(), 0), ResumedStep: max(o.GetResumedStep(), 0), FromNothing: o.GetFromNothing()}
	}
	if l.local == nil && l.lost == 0 && l.older == nil {
		delete(h.locals, j.ID)
		return
	}
	h.locals[j.ID] = l
}

// addLocal tells of a running job the newest checkpoint that its ranks have saved on their nodes' own disks and that is not on the shared
// storage yet, and what could not be used at the start of its epoch.
func (h *Hub) addLocal(p *schedulerv1.Job, id cluster.JobID, epoch cluster.Epoch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l, ok := h.locals[id]; ok && l.epoch == epoch {
		p.LocalCheckpoint, p.LostStep, p.OlderStart = l.local, l.lost, l.older
	}
}
