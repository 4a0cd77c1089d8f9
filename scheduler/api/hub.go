package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// Defaults of HubConfig.
const (
	DefaultLease     = 6 * time.Second
	DefaultHeartbeat = time.Second
)

// HubConfig is what a Hub needs.
type HubConfig struct {
	Replica  Replica
	ServerID string
	Servers  []Server // told to the agents, which try them in turn

	Lease     time.Duration // how long a node is trusted without a heartbeat; default 6 s. Shorter loses nodes to hiccups, longer delays restarts
	Heartbeat time.Duration // how often agents send one; default 1 s

	Clock      func() time.Time      // nil: time.Now. Its monotonic reading is used where it has one
	Logger     *slog.Logger          // nil: slog.Default
	Registerer prometheus.Registerer // nil: metrics are not exported
}

// Hub is the leader's end of the agents' streams (AgentService). Orders and
// reports are levels: each is whole, the newest counts, and repeating one
// changes nothing. What the Hub remembers is telemetry of this leadership and
// starts anew with the next. It is safe for concurrent use.
type Hub struct {
	agentv1.UnimplementedAgentServiceServer

	cfg     HubConfig
	log     *slog.Logger
	metrics *hubMetrics

	mu        sync.Mutex // guards all below; never held across I/O
	reign     *reign     // nil while this server does not lead
	agents    map[cluster.NodeID]*agent
	names     map[string]*agent
	pulses    map[cluster.NodeID]*pulse
	meetings  map[cluster.JobID]*meeting
	progress  map[cluster.JobID]lastProgress
	rings     map[cluster.JobID]*ring
	locals    map[cluster.JobID]lastLocal
	copies    copyPeers
	usages    map[string]usage // by user
	lastLook  time.Time        // when the leases were last looked at
	orderKeys map[cluster.JobID]control.OrderKey
}

// reign is one leadership of this server.
type reign struct {
	ctx     context.Context
	term    uint64
	streams sync.WaitGroup // handlers and their goroutines
}

// NewHub makes a Hub that redirects every agent until Lead is called.
func NewHub(cfg HubConfig) *Hub {
	if cfg.Lease <= 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = DefaultHeartbeat
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	h := &Hub{cfg: cfg, log: cfg.Logger}
	h.forget()
	h.metrics = newHubMetrics(cfg.Registerer, func() float64 {
		h.mu.Lock()
		defer h.mu.Unlock()
		return float64(len(h.agents))
	})
	return h
}

// forget drops all memory of a leadership. The caller holds mu, or is NewHub.
func (h *Hub) forget() {
	h.agents, h.names = map[cluster.NodeID]*agent{}, map[string]*agent{}
	h.pulses = map[cluster.NodeID]*pulse{}
	h.meetings = map[cluster.JobID]*meeting{}
	h.progress = map[cluster.JobID]lastProgress{}
	h.rings = map[cluster.JobID]*ring{}
	h.locals, h.copies = map[cluster.JobID]lastLocal{}, copyPeers{}
	h.orderKeys = map[cluster.JobID]control.OrderKey{}
	h.usages = map[string]usage{}
}

// Connect serves one agent's stream until either end leaves or the leadership
// ends. Its status tells the agent what to do next.
func (h *Hub) Connect(stream grpc.BidiStreamingServer[agentv1.ConnectRequest, agentv1.ConnectResponse]) error {
	if err := checkAgentCert(stream.Context()); err != nil {
		return err
	}
	h.mu.Lock()
	r := h.reign
	if r != nil {
		r.streams.Add(1) // under mu, so that it comes before Lead's Wait
	}
	h.mu.Unlock()
	if r == nil {
		id, address := h.cfg.Replica.Leader()
		if id == h.cfg.ServerID {
			address = "" // elected, but not ready yet: try again
		}
		return stream.Send(&agentv1.ConnectResponse{Message: &agentv1.ConnectResponse_Redirect{
			Redirect: &agentv1.Redirect{LeaderAddress: address},
		}})
	}
	defer r.streams.Done()
	a := newAgent(h, r, stream)
	defer a.leave()
	err := a.serve()
	if errors.Is(err, io.EOF) {
		err = nil // the agent has said that it leaves
	}
	err = toStatus(h.log, err)
	if a.hello != nil {
		h.log.Info("agent disconnected", "node", a.id, "name", a.hello.GetName(), "why", err)
	}
	return err
}

// join gives an agent its place. An agent that was there is sent away if the
// newcomer has the better claim, else the newcomer is refused.
func (h *Hub) join(a *agent, hello *agentv1.Hello) error {
	id, name := cluster.NodeID(hello.GetNodeId()), hello.GetName()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reign != a.reign {
		return errReignOver
	}
	now := h.cfg.Clock()
	var replaced []*agent // only once it is sure that the newcomer stays
	for _, old := range []*agent{h.agents[id], h.names[name]} {
		if old == nil || old == a {
			continue
		}
		if err := conflict(rival{hello: old.hello, heartbeat: now.Sub(h.pulses[old.id].granted)}, hello, h.cfg.Lease); err != nil {
			return err
		}
		replaced = append(replaced, old)
	}
	for _, old := range replaced {
		h.remove(old)
		old.cancel(status.Errorf(codes.Aborted, "node %s: another stream of this node has taken its place", old.hello.GetName()))
	}
	if a.hello != nil && a.hello.GetName() != name {
		delete(h.names, a.hello.GetName())
	}
	a.id, a.hello = id, hello
	h.agents[id], h.names[name] = a, a
	if h.pulses[id] == nil {
		h.pulses[id] = &pulse{}
	}
	h.pulses[id].grant(now)
	return nil
}

// remove takes an agent's place away if it still has it. The caller holds mu.
func (h *Hub) remove(a *agent) {
	if a.hello == nil {
		return
	}
	if h.agents[a.id] == a {
		delete(h.agents, a.id)
	}
	if h.names[a.hello.GetName()] == a {
		delete(h.names, a.hello.GetName())
	}
}

// Telemetry is what the leader's memory knows of a node.
type Telemetry struct {
	Known        bool               // whether a heartbeat has arrived in this leadership
	HeartbeatAge time.Duration      // since the last heartbeat
	ClockSkew    time.Duration      // agent's clock minus the leader's, positive if ahead
	Utilization  map[string]float64 // 0..1 by GPU UUID, of those that report any; not to be edited
	Storage      string             // what is wrong with the checkpoints' storage as the node sees it; "": nothing
}

// Telemetry returns what is known of a node, the zero value while this server
// does not lead.
func (h *Hub) Telemetry(id cluster.NodeID) Telemetry {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pulses[id]
	if p == nil || p.beat.IsZero() {
		return Telemetry{}
	}
	return Telemetry{Known: true, HeartbeatAge: h.cfg.Clock().Sub(p.beat), ClockSkew: p.skew, Utilization: p.load, Storage: p.storage}
}

// Progress returns what rank 0 of a running job last said in an epoch, or nil.
// The value is not to be edited.
func (h *Hub) Progress(id cluster.JobID, epoch cluster.Epoch) *cluster.Progress {
	return h.lastOf(id, epoch).progress
}

// CheckpointPace returns how often a running job is told to save, and why;
// "": it has not asked, or says so itself.
func (h *Hub) CheckpointPace(id cluster.JobID, epoch cluster.Epoch) string {
	return h.lastOf(id, epoch).pace
}

// CheckpointProblem returns why what a running job saved last is no checkpoint,
// as its agent says; "": nothing is wrong.
func (h *Hub) CheckpointProblem(id cluster.JobID, epoch cluster.Epoch) string {
	return h.lastOf(id, epoch).problem
}

// lastOf returns what was last said of a job in an epoch: nothing, if that is another one.
func (h *Hub) lastOf(id cluster.JobID, epoch cluster.Epoch) lastProgress {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p, ok := h.progress[id]; ok && p.epoch == epoch {
		return p
	}
	return lastProgress{}
}

// Agents returns how many agents are connected.
func (h *Hub) Agents() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.agents)
}
