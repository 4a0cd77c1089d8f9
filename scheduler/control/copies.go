package control

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Keeper is a node whose agent keeps copies of other nodes' checkpoints.
type Keeper struct {
	Node    cluster.NodeID
	Rack    string // "": not known
	Address string // of its agent
}

// keeperReach is how many nodes are looked at for one in another rack.
const keeperReach = 64

// CopyPeers gives each node the address of the agent that keeps copies of its
// checkpoints: that of the next node by id, in another rack if there is one
// near. So each has one if there are two, and a node that comes or goes changes
// its neighbours' alone. The order of keepers does not matter, and is changed.
func CopyPeers(keepers []Keeper) map[cluster.NodeID]string {
	slices.SortFunc(keepers, func(a, b Keeper) int { return cmp.Compare(a.Node, b.Node) })
	to := make(map[cluster.NodeID]string, len(keepers))
	for i := range keepers {
		own := &keepers[i]
		for n := 1; n < min(len(keepers), keeperReach+1); n++ {
			peer := &keepers[(i+n)%len(keepers)]
			if apart := peer.Rack != "" && peer.Rack != own.Rack; n == 1 || apart {
				to[own.Node] = peer.Address
				if apart {
					break
				}
			}
		}
	}
	return to
}
