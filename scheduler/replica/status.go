package replica

import (
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Status is what this server knows of the cluster's servers at this moment.
type Status struct {
	ID, Address     string
	ClusterID       string // "" until the cluster's first leader has given it one
	Role            string // "leader", "follower", "candidate" or "stopped"
	Ready           bool   // a leader that has applied all earlier entries
	Term            uint64
	LastIndex       uint64 // last entry in this server's log
	CommitIndex     uint64
	AppliedIndex    uint64 // last entry applied here
	LeaderID        string // "" while unknown
	LeaderAddress   string
	LastContact     time.Duration // since the leader was last heard; 0 on the leader
	DiskBusy        time.Duration // how long the current write to the log has taken
	Peers           []Peer        // the other servers, on the leader only
	Err             error         // why this server failed, or nil
	NeverHeardALead bool          // a follower that has not heard of a leader since its start
}

// Peer is another server as the leader sees it.
type Peer struct {
	ID, Address string
	LastIndex   uint64        // last entry in its log, by its own last word
	Lag         uint64        // entries that it lacks
	LastContact time.Duration // since its last answer; -1 if it has not answered yet
	Snapshots   uint64        // whole states sent to it since this server started
}

// Status returns the server's status. It never blocks. Safe for concurrent use.
func (r *Replica) Status() Status {
	s := Status{
		ID: r.cfg.ID, Address: r.cfg.address(r.cfg.ID), ClusterID: r.knownCluster(),
		Role: strings.ToLower(r.raft.State().String()), Term: r.raft.CurrentTerm(),
		LastIndex: r.raft.LastIndex(), CommitIndex: r.raft.CommitIndex(), AppliedIndex: r.fsm.applied.Load(),
		DiskBusy: r.disk.stuckFor(), Err: r.Err(),
	}
	if s.Err != nil || r.raft.State() == raft.Shutdown {
		s.Role = "stopped"
	}
	s.LeaderID, s.LeaderAddress = r.Leader()
	if l := r.leading.Load(); l != nil {
		select {
		case <-l.ready:
			s.Ready = true
		default:
		}
	}
	if s.Role == "leader" {
		s.Peers = r.peerStatus(s.LastIndex)
		return s
	}
	if last := r.raft.LastContact(); last.IsZero() {
		s.NeverHeardALead = true
	} else {
		s.LastContact = time.Since(last)
	}
	return s
}

func (r *Replica) peerStatus(lastIndex uint64) []Peer {
	var peers []Peer
	for _, m := range r.cfg.Servers {
		if m.ID == r.cfg.ID {
			continue
		}
		st := r.peers.peer(m.ID)
		p := Peer{ID: m.ID, Address: m.Address, LastIndex: st.lastLog, Snapshots: st.snapshots, LastContact: -1}
		if lastIndex > st.lastLog {
			p.Lag = lastIndex - st.lastLog
		}
		if !st.contact.IsZero() {
			p.LastContact = time.Since(st.contact)
		}
		peers = append(peers, p)
	}
	return peers
}
