package control

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Running lists the workers of a report that still run, for RegisterNode.
func Running(workers []WorkerStatus) []cluster.WorkerRef {
	var refs []cluster.WorkerRef
	for i := range workers {
		if w := &workers[i]; w.State == cluster.WorkerRunning {
			refs = append(refs, cluster.WorkerRef{Job: w.Key.Job, Epoch: w.Key.Epoch, Rank: w.Key.Rank, GPUs: w.GPUs})
		}
	}
	return refs
}

// Unregistered reports whether a node whose agent is connected must be
// registered anew: the state does not know it, gave it up meanwhile, or knows
// another incarnation of its agent. Cheap; for each look at the state.
func Unregistered(s *cluster.State, node cluster.NodeID, incarnation uint64) bool {
	n := s.Node(node)
	return n == nil || n.State == cluster.NodeLost || n.Incarnation != incarnation
}

// NeedsRegistration reports whether the state does not say of a node yet what
// registering it would make it say. Where it is false, a reconnect writes
// nothing to the log.
func NeedsRegistration(s *cluster.State, in *cluster.Node, running []cluster.WorkerRef) bool {
	n := s.Node(in.ID)
	if n == nil || n.State != cluster.NodeReady || n.Name != in.Name || n.Address != in.Address || n.Host != in.Host ||
		n.BootID != in.BootID || n.Incarnation != in.Incarnation || n.Version != in.Version ||
		n.CPUMilli != in.CPUMilli || n.MemBytes != in.MemBytes || !slices.Equal(n.Labels, in.Labels) || !slices.Equal(n.Taints, in.Taints) {
		return true
	}
	if !sameGPUs(n.GPUs, in.GPUs) {
		return true
	}
	stale := 0
	for i := range running {
		k := keyOf(&running[i])
		switch on := WorkerOn(s, in.ID, k); {
		case on != nil && !on.State.Ended():
		case isStale(n, k):
			stale++
		default:
			return true
		}
	}
	return stale != len(n.Stale)
}

// sameGPUs compares a node's GPUs with an inventory, as registering it would.
func sameGPUs(have, inventory []cluster.GPU) bool {
	if len(have) < len(inventory) {
		return false
	}
	for i := range have {
		g := have[i]
		if i >= len(inventory) {
			// Kept beyond the inventory: only what vanished while it was held.
			if !g.Held() || g.Healthy {
				return false
			}
			continue
		}
		in := inventory[i]
		if g.UUID != in.UUID || g.Type != in.Type || g.MemBytes != in.MemBytes || g.Healthy != in.Healthy || g.Reason != in.Reason || g.Island != in.Island || g.NUMA != in.NUMA {
			return false
		}
	}
	return true
}
