package nodeagent

import (
	"fmt"
	"strconv"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// The ports for MASTER_PORT of workers that share a GPU, from first to last. They begin above those of whole GPUs,
// 29500 + an index below 1024, and end below Linux's range for outgoing connections.
const (
	firstSharePort = 29500 + 1024
	lastSharePort  = 32767
)

// choosePort returns the worker's MASTER_PORT: the leader's where it names one, else one that no living worker of this
// node has. The leader leaves it to the agent for shares of a GPU: their gangs are of one worker, so that nobody else
// must know the port, and only the node knows which ports are in use. It is kept in the worker's labels, which outlive
// the agent. Only the loop calls it.
func (r *reconciler) choosePort(key reconcile.Key, a *agentv1.Assignment, statuses []worker.Status) (int32, error) {
	if a.GetMasterPort() != 0 {
		return a.GetMasterPort(), nil
	}
	taken := map[int32]bool{}
	for _, st := range statuses {
		if st.State != worker.Exited {
			taken[portOf(st)] = true
		}
	}
	for _, port := range r.ports {
		taken[port] = true
	}
	for port := int32(firstSharePort); port <= lastSharePort; port++ {
		if !taken[port] {
			r.ports[key] = port
			return port, nil
		}
	}
	return 0, fmt.Errorf("launch worker %v: living workers of this node have all ports from %d to %d for MASTER_PORT: "+
		"ask for larger shares, so that fewer of them lie on one node", key, firstSharePort, lastSharePort)
}

// portOf is the port that was chosen for a worker, or 0.
func portOf(st worker.Status) int32 {
	port, err := strconv.ParseInt(st.Labels[labelPort], 10, 32)
	if err != nil {
		return 0
	}
	return int32(port)
}

// shareOf is what a worker holds of each of its GPUs, in thousandths; all of them if its spec does not say: it is of a
// whole GPU, or was launched by a release without shares.
func shareOf(st worker.Status) int {
	milli, err := strconv.Atoi(st.Labels[labelShare])
	if err != nil {
		return reconcile.WholeGPU
	}
	return reconcile.Share(milli)
}
