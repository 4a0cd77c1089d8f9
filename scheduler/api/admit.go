package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of a Hello.
const (
	maxAddress    = 256 // bytes of an address or host
	maxLabels     = 64  // and as many taints
	maxLabelBytes = 256 // key and value together
)

// checkHello refuses an introduction that could not be registered, or that is
// meant for another cluster.
func checkHello(h *agentv1.Hello, clusterID string) error {
	bad := func(format string, args ...any) error {
		return status.Error(codes.InvalidArgument, "hello: "+fmt.Sprintf(format, args...))
	}
	switch {
	case h.GetClusterId() != "" && h.GetClusterId() != clusterID:
		return status.Errorf(codes.FailedPrecondition,
			"node %s belongs to cluster %s, this is cluster %s: point the agent at its own cluster's servers, or give it a new, empty state directory to join this one",
			h.GetName(), h.GetClusterId(), clusterID)
	case h.GetNodeId() == "" || len(h.GetNodeId()) > cluster.MaxNameLen:
		return bad("node_id must be 1 to %d bytes", cluster.MaxNameLen)
	case h.GetName() == "" || len(h.GetName()) > cluster.MaxNameLen:
		return bad("name must be 1 to %d bytes", cluster.MaxNameLen)
	case len(h.GetAddress()) > maxAddress || len(h.GetHost()) > maxAddress || len(h.GetBootId()) > maxAddress || len(h.GetVersion()) > maxAddress:
		return bad("address, host, boot_id and version must be at most %d bytes", maxAddress)
	case len(h.GetGpus()) > cluster.MaxNodeGPUs:
		return bad("%d GPUs, at most %d", len(h.GetGpus()), cluster.MaxNodeGPUs)
	}
	for _, text := range []string{h.GetNodeId(), h.GetName(), h.GetAddress(), h.GetHost(), h.GetBootId(), h.GetVersion()} {
		if strings.ContainsFunc(text, unicode.IsControl) {
			return bad("%q holds a control character", text)
		}
	}
	if why := badPairs("label", h.GetLabels()); why != "" {
		return bad("%s", why)
	}
	if why := badPairs("taint", h.GetTaints()); why != "" {
		return bad("%s", why)
	}
	for _, g := range h.GetGpus() {
		if len(g.GetUuid()) > cluster.MaxNameLen || len(g.GetType()) > cluster.MaxNameLen {
			return bad("GPU %.64q: uuid and type must be at most %d bytes", g.GetUuid(), cluster.MaxNameLen)
		}
		if strings.ContainsFunc(g.GetUuid()+g.GetType(), unicode.IsControl) {
			return bad("GPU %q of type %q: holds a control character", g.GetUuid(), g.GetType())
		}
		if g.GetIsland() < 0 || g.GetIsland() >= cluster.MaxNodeGPUs {
			return bad("GPU %q: island %d is not in 0..%d", g.GetUuid(), g.GetIsland(), cluster.MaxNodeGPUs-1)
		}
		if g.GetNumaNode() < 0 || g.GetNumaNode() >= cluster.MaxNodeGPUs {
			return bad("GPU %q: NUMA node %d is not in 0..%d: leave it unset where it is not known", g.GetUuid(), g.GetNumaNode(), cluster.MaxNodeGPUs-1)
		}
	}
	return checkWorkers(h.GetWorkers())
}

// badPairs returns what is wrong with a node's labels or taints, or "".
func badPairs(what string, pairs map[string]string) string {
	if len(pairs) > maxLabels {
		return fmt.Sprintf("%d %ss, at most %d", len(pairs), what, maxLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		switch v := pairs[k]; {
		case k == "":
			return fmt.Sprintf("%s =%.64s has no key", what, v)
		case strings.ContainsFunc(k+v, unicode.IsControl):
			return fmt.Sprintf("%s %.64q=%.64q holds a control character", what, k, v)
		case len(k)+len(v) > maxLabelBytes:
			return fmt.Sprintf("%s %.32q is longer than %d bytes", what, k, maxLabelBytes)
		}
	}
	return ""
}

// checkWorkers bounds a list of workers.
func checkWorkers(workers []*agentv1.WorkerStatus) error {
	if len(workers) > maxWorkersReported {
		return status.Errorf(codes.ResourceExhausted, "%d workers in one report, at most %d", len(workers), maxWorkersReported)
	}
	return nil
}

// rival is the live stream of an agent that a newcomer may be in conflict with.
type rival struct {
	hello     *agentv1.Hello
	heartbeat time.Duration // age of its last sign of life
}

// conflict decides between the newcomer and the agent that holds its node id
// or its name: nil means that the newcomer takes the place. It is pure.
func conflict(old rival, h *agentv1.Hello, lease time.Duration) error {
	alive := old.heartbeat <= lease
	sameNode := old.hello.GetNodeId() == h.GetNodeId()
	sameMachine := old.hello.GetBootId() == h.GetBootId() && old.hello.GetHost() == h.GetHost()
	switch {
	case !alive:
		return nil
	case !sameNode:
		return status.Errorf(codes.AlreadyExists,
			"two agents with one name: %q is the node of the agent at %s (node id %s): start this agent with another --name, or stop the other one first",
			h.GetName(), old.hello.GetAddress(), old.hello.GetNodeId())
	case !sameMachine:
		return status.Errorf(codes.AlreadyExists,
			"two agents with one name: node %q (id %s) is connected from the agent at %s, on another machine or before a reboot: if this state directory is a copy, delete it here; after a reboot this ends by itself within %s",
			h.GetName(), h.GetNodeId(), old.hello.GetAddress(), lease)
	case h.GetIncarnation() < old.hello.GetIncarnation():
		return status.Errorf(codes.AlreadyExists,
			"two agents with one name: a newer agent of node %q (incarnation %d, this one is %d) is connected from %s: stop this one",
			h.GetName(), old.hello.GetIncarnation(), h.GetIncarnation(), old.hello.GetAddress())
	default:
		return nil // the same agent again, or its successor
	}
}

// nodeOf is a Hello as the state stores it.
func nodeOf(h *agentv1.Hello) cluster.Node {
	n := cluster.Node{
		ID: cluster.NodeID(h.GetNodeId()), Name: h.GetName(), Address: h.GetAddress(), Host: h.GetHost(),
		BootID: h.GetBootId(), Incarnation: h.GetIncarnation(), Version: h.GetVersion(),
		CPUMilli: h.GetCpuMilli(), MemBytes: h.GetMemoryBytes(),
	}
	for _, g := range h.GetGpus() {
		numa := int32(cluster.NUMAUnknown)
		if g.NumaNode != nil {
			numa = g.GetNumaNode()
		}
		n.GPUs = append(n.GPUs, cluster.GPU{
			UUID: g.GetUuid(), Type: g.GetType(), MemBytes: g.GetMemoryBytes(),
			Healthy: g.GetHealthy(), Reason: cutText(g.GetReason(), cluster.MaxReason), Island: g.GetIsland(), NUMA: numa,
		})
	}
	for _, k := range slices.Sorted(maps.Keys(h.GetLabels())) {
		n.Labels = append(n.Labels, cluster.Label{Key: k, Value: h.GetLabels()[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(h.GetTaints())) {
		n.Taints = append(n.Taints, cluster.Taint{Key: k, Value: h.GetTaints()[k]})
	}
	return n
}
