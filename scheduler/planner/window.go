package planner

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
)

// refreshWindows tells the fleet which nodes are reserved, whenever a
// reservation of the policy has ended or a node has changed.
func (x *Index) refreshWindows() {
	if x.now < x.windowsAt {
		return
	}
	x.windowsAt = math.MaxInt64
	old := x.windowHolds
	x.windowHolds = map[cluster.NodeID][]fleet.Hold{}
	for i := range x.policy.Windows {
		w := &x.policy.Windows[i]
		if x.now >= w.End {
			continue
		}
		x.windowsAt = min(x.windowsAt, w.End)
		x.state.EachNode(func(n *cluster.Node) bool {
			if covers(w, n) {
				x.windowHolds[n.ID] = append(x.windowHolds[n.ID], fleet.Hold{Queue: w.Queue, At: w.Start})
			}
			return true
		})
	}
	freed := false
	x.state.EachNode(func(n *cluster.Node) bool {
		if was, is := old[n.ID], x.windowHolds[n.ID]; !slices.Equal(was, is) {
			x.setHolds(n.ID)
			freed = freed || len(is) < len(was)
		}
		return true
	})
	if freed {
		x.openAll()
		x.reopenHeld()
	}
}

// covers reports whether a reservation is of a node.
func covers(w *cluster.Window, n *cluster.Node) bool {
	if len(w.Nodes) > 0 && !slices.Contains(w.Nodes, n.Name) {
		return false
	}
	for _, l := range w.Selector {
		if n.Label(l.Key) != l.Value {
			return false
		}
	}
	return true
}

// clearWindows stops the jobs that are on reserved nodes without a right to be
// there once the reservation has begun.
func (x *Index) clearWindows(plan *Plan) {
	for i := range x.policy.Windows {
		w := &x.policy.Windows[i]
		if x.now < w.Start || x.now >= w.End {
			continue
		}
		seen := map[cluster.JobID]bool{}
		x.state.EachNode(func(n *cluster.Node) bool {
			if !n.Holds() || !covers(w, n) {
				return true
			}
			for k := range n.GPUs {
				n.GPUs[k].EachHolder(func(id cluster.JobID, _ cluster.Epoch) {
					if !seen[id] {
						seen[id] = true
						x.clearJob(plan, w, id)
					}
				})
			}
			return true
		})
	}
}

func (x *Index) clearJob(plan *Plan, w *cluster.Window, id cluster.JobID) {
	j := x.state.Job(id)
	if j == nil || (j.State != cluster.Starting && j.State != cluster.Running) || Below(j.Spec.Queue, w.Queue) {
		return
	}
	what := "reserved for queue " + w.Queue
	if w.Maintenance {
		what = "under maintenance"
	}
	plan.Evicts = append(plan.Evicts, Evict{
		Job: id, Epoch: j.Epoch, Cause: cluster.StopDrain,
		Reason: fmt.Sprintf("its node is %s (reservation %s)", what, w.Name),
	})
}

// Below reports whether a queue is another one or below it. Nothing is below
// the empty path.
func Below(queue, top string) bool {
	return top != "" && (queue == top || strings.HasPrefix(queue, top) && queue[len(top)] == '/')
}
