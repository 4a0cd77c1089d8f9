package nodeagent

import (
	"fmt"
	"sync"
	"time"

	"github.com/gangline/gangline/nodeagent/reconcile"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// orderBox hands the newest order from the stream to the loop. Orders are levels, so only the newest counts.
type orderBox struct {
	mu     sync.Mutex
	newest *agentv1.Desired // not yet taken, or nil
}

func newOrderBox() *orderBox { return &orderBox{} }

// put leaves an order unless a newer one waits.
func (b *orderBox) put(d *agentv1.Desired) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.newest == nil || fenceOf(d).Compare(fenceOf(b.newest)) >= 0 {
		b.newest = d
	}
}

// take returns the order that waits, or nil.
func (b *orderBox) take() *agentv1.Desired {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.newest
	b.newest = nil
	return d
}

// putBack returns an order that could not be obeyed yet; one that came meanwhile goes first.
func (b *orderBox) putBack(d *agentv1.Desired) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.newest == nil {
		b.newest = d
	}
}

// order is a Desired in the words of reconcile, with the way back to the message.
type order struct {
	desired *reconcile.Desired
	by      map[reconcile.Key]orderedWorker
}

// orderedWorker is one worker with its assignment.
type orderedWorker struct {
	assignment *agentv1.Assignment
	worker     *agentv1.AssignedWorker
}

func newOrder(d *agentv1.Desired) *order {
	o := &order{desired: &reconcile.Desired{}, by: map[reconcile.Key]orderedWorker{}}
	for _, a := range d.GetAssignments() {
		as := reconcile.Assignment{Job: a.GetJobId(), Epoch: a.GetEpoch()}
		if s := a.GetStop(); s != nil {
			as.Stop = &reconcile.Stop{
				Why: s.GetReason(), Warn: milliseconds(s.GetWarnMs()), Grace: milliseconds(s.GetGraceMs()),
			}
		}
		for _, w := range a.GetWorkers() {
			as.Workers = append(as.Workers, reconcile.Slot{Rank: int(w.GetRank()), GPUs: w.GetGpuUuids(), Milli: int(w.GetGpuMilli())})
			key := reconcile.Key{Job: a.GetJobId(), Epoch: a.GetEpoch(), Rank: int(w.GetRank())}
			o.by[key] = orderedWorker{assignment: a, worker: w}
		}
		o.desired.Assignments = append(o.desired.Assignments, as)
	}
	for _, k := range d.GetAcknowledged() {
		o.desired.Acknowledged = append(o.desired.Acknowledged,
			reconcile.Key{Job: k.GetJobId(), Epoch: k.GetEpoch(), Rank: int(k.GetRank())})
	}
	return o
}

// maxPhase bounds both phases of a stop, as package worker does: a longer one is surely a mistake of units.
const maxPhase = 24 * time.Hour

func milliseconds(ms int64) time.Duration {
	return time.Duration(min(max(ms, 0), maxPhase.Milliseconds())) * time.Millisecond
}

func fenceOf(d *agentv1.Desired) reconcile.Fence {
	return reconcile.Fence{Term: d.GetFence().GetTerm(), Index: d.GetFence().GetIndex()}
}

// describe names an order for the log.
func describe(d *agentv1.Desired) string {
	return fmt.Sprintf("%d assignments at term %d, index %d", len(d.GetAssignments()), d.GetFence().GetTerm(), d.GetFence().GetIndex())
}
