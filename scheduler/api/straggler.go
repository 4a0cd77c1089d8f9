package api

import (
	"slices"
	"time"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// How stragglers are found.
const (
	// ringSpan is over how long a time rates are taken, at least; twice as long at most.
	ringSpan = 15 * time.Second
	// ringStale is after how long without news a ring is no longer spoken of: the ranks compute, or hang.
	ringStale = time.Minute
	// notable is which part of the time others must wait for a rank before it is named: less is chance.
	notable = 0.05
)

// ring gathers what the members of one formation of an epoch tell of their
// collective calls. It is telemetry of this leadership, as progress is.
type ring struct {
	epoch     cluster.Epoch
	formation int32
	members   []cluster.Rank
	said      []ringWords // by place in members
}

// ringWords are what one rank has said: the newest word, one that is at least
// ringSpan old and is compared with it, and the one that takes its place.
type ringWords struct{ now, heir, then ringWord }

type ringWord struct {
	at           time.Time // zero: never said
	calls, bytes int64
	busy         time.Duration
}

// hear takes a member's word. Repeated words change nothing.
func (r *ring) hear(rank cluster.Rank, at time.Time, said *agentv1.Ring) {
	place := slices.Index(r.members, rank)
	if place < 0 {
		return // it is to join, or was given up
	}
	w := &r.said[place]
	word := ringWord{at: at, calls: said.GetCalls(), bytes: said.GetBytes(), busy: time.Duration(said.GetBusyNs())}
	switch {
	case word.calls == w.now.calls && !w.now.at.IsZero():
		return
	case w.now.at.IsZero() || word.calls < w.now.calls: // the first word, or another group's
		*w = ringWords{now: word, heir: word, then: word}
		return
	}
	w.now = word
	if at.Sub(w.heir.at) >= ringSpan {
		w.then, w.heir = w.heir, word
	}
}

// gone is how the calls of the ranks have gone lately, nil if one of them has
// not told. All ranks make the same calls; so who spends the least time in them
// comes last, and a rank in the middle waits for it by the difference.
func (r *ring) gone(now time.Time) *schedulerv1.Ring {
	out := &schedulerv1.Ring{}
	each := make([]float64, len(r.said)) // seconds in a call
	for place := range r.said {
		w := &r.said[place]
		calls, took := float64(w.now.calls-w.then.calls), w.now.at.Sub(w.then.at).Seconds()
		if calls <= 0 || took <= 0 || now.Sub(w.now.at) > ringStale {
			return nil
		}
		busy := (w.now.busy - w.then.busy).Seconds()
		each[place] = busy / calls
		out.Members = append(out.Members, int32(r.members[place]))
		out.BusyRatio = append(out.BusyRatio, min(max(busy/took, 0), 1))
		if place == 0 {
			out.CallsPerSecond, out.BytesPerSecond = calls/took, float64(w.now.bytes-w.then.bytes)/took
		}
	}
	last := 0
	for place := range each {
		if each[place] < each[last] {
			last = place
		}
	}
	sorted := slices.Sorted(slices.Values(each))
	lag := sorted[len(sorted)/2] - each[last]
	if ratio := min(lag*out.CallsPerSecond, 1); len(each) > 1 && ratio >= notable {
		out.Straggler = &schedulerv1.Straggler{Rank: int32(r.members[last]), LagSeconds: lag, LagRatio: ratio}
	}
	return out
}

// hearRing takes what a rank of a running job says of its calls. The caller
// holds mu.
func (h *Hub) hearRing(j *cluster.Job, rank int32, said *agentv1.Ring) {
	if said == nil {
		return
	}
	r := h.rings[j.ID]
	if r == nil || r.epoch != j.Epoch || r.formation != j.Formation() {
		members := j.Members()
		r = &ring{epoch: j.Epoch, formation: j.Formation(), members: members, said: make([]ringWords, len(members))}
		h.rings[j.ID] = r
	}
	r.hear(cluster.Rank(rank), h.cfg.Clock(), said)
}

// Ring returns how the collective calls of a running job's epoch have gone
// lately, or nil if that is not known.
func (h *Hub) Ring(id cluster.JobID, epoch cluster.Epoch) *schedulerv1.Ring {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rings[id]; r != nil && r.epoch == epoch {
		return r.gone(h.cfg.Clock())
	}
	return nil
}

// addRing adds how a running job's collective calls go.
func (s *Service) addRing(p *schedulerv1.Job, j *cluster.Job) {
	if !j.State.Holding() {
		return
	}
	p.Ring = s.hub.Ring(j.ID, j.Epoch)
	if late := p.GetRing().GetStraggler(); late != nil && int(late.GetRank()) < len(p.GetWorkers()) {
		late.Node = p.GetWorkers()[late.GetRank()].GetNodeName()
	}
}
