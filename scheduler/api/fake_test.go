package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is a whole replicated cluster in one lock: commands apply at once. Its
// replicas differ only in who they are.
type model struct {
	t testing.TB

	mu      sync.Mutex
	state   *cluster.State // owned by the model
	view    *cluster.State
	events  []Event
	first   uint64 // changes up to this index are forgotten
	leader  string
	updated chan struct{}
	fail    func(cmds []cluster.Command) error // after applying, if set
	writes  int                                // entries logged
	late    bool                               // hold new events back until release
	held    []Event
	address map[string]string
}

func newModel(t testing.TB) *model {
	m := &model{t: t, state: &cluster.State{}, leader: "s1", updated: make(chan struct{}), address: map[string]string{}}
	m.apply(&cluster.Init{ClusterID: "c1", Version: cluster.Version})
	m.first = m.view.Index()
	m.events = nil
	m.writes = 0
	return m
}

// apply logs one entry and fails the test if a command is refused.
func (m *model) apply(cmds ...cluster.Command) []cluster.Result {
	m.t.Helper()
	res, _, _ := m.log(cmds)
	for i, r := range res {
		if r.Code != cluster.OK {
			m.t.Fatalf("%T refused: %s", cmds[i], r.Message)
		}
	}
	return res
}

func (m *model) log(cmds []cluster.Command) ([]cluster.Result, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	index := m.state.Index() + 1
	m.writes++
	var res []cluster.Result
	for _, c := range cmds {
		r := m.state.Apply(index, cluster.Time(time.Now().UnixNano()), c)
		res = append(res, r)
		for _, ch := range r.Changes {
			e := Event{Index: index}
			if ch.Job != 0 {
				if e.Job = m.state.Job(ch.Job); e.Job == nil {
					e.GoneJob = ch.Job
				}
			} else if e.Node = m.state.Node(ch.Node); e.Node == nil {
				e.GoneNode = ch.Node
			}
			if m.late {
				m.held = append(m.held, e)
			} else {
				m.events = append(m.events, e)
			}
		}
	}
	if err := m.state.Check(); err != nil {
		m.t.Errorf("invariants broken: %v", err)
	}
	m.view = m.state.Snapshot()
	close(m.updated)
	m.updated = make(chan struct{})
	if m.fail != nil {
		if err := m.fail(cmds); err != nil {
			return nil, 0, err
		}
	}
	return res, index, nil
}

// release shows the events that were held back.
func (m *model) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events, m.held, m.late = append(m.events, m.held...), nil, false
	close(m.updated)
	m.updated = make(chan struct{})
}

func (m *model) lead(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leader = id
}

func (m *model) forgetEvents() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events, m.first = nil, m.view.Index()
}

func (m *model) State() *cluster.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.view
}

func (m *model) written() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// replica is the model as one server sees it.
type replica struct {
	*model
	id     string
	behind *cluster.State // what it shows instead of the newest state, if set; guarded by the model's mu
}

func (r *replica) State() *cluster.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.behind != nil {
		return r.behind
	}
	return r.view
}

// freeze makes the replica fall behind, or catch up.
func (r *replica) freeze(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.behind = nil; on {
		r.behind = r.view
	}
	close(r.updated)
	r.updated = make(chan struct{})
}

func (r *replica) isLeader() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leader == r.id
}

func (r *replica) Propose(ctx context.Context, cmds ...cluster.Command) ([]cluster.Result, uint64, error) {
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	if !r.isLeader() {
		return nil, 0, fmt.Errorf("propose: %w", ErrNotLeader)
	}
	return r.log(cmds)
}

func (r *replica) Read(context.Context) (*cluster.State, error) {
	if !r.isLeader() {
		return nil, fmt.Errorf("read: %w", ErrNotLeader)
	}
	return r.State(), nil
}

func (r *replica) WaitIndex(ctx context.Context, index uint64) error {
	for {
		ch := r.Updated()
		if r.State().Index() >= index {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *replica) Events(from uint64) ([]Event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from < r.first {
		return nil, false
	}
	var out []Event
	for _, e := range r.events {
		if e.Index <= from {
			continue
		}
		if len(out) >= 100 && e.Index != out[len(out)-1].Index {
			break
		}
		out = append(out, e)
	}
	return out, true
}

func (r *replica) Updated() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.updated
}

func (r *replica) Leader() (string, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leader == "" {
		return "", ""
	}
	return r.leader, "passthrough:///" + r.leader
}

func (r *replica) Term() uint64 { return 7 }

// network connects the servers and agents of a test by name.
type network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
}

func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("connection to %s refused", address)
	}
	return l.DialContext(ctx)
}

func (n *network) options() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(n.dial), grpc.WithTransportCredentials(insecure.NewCredentials())}
}

// serve starts a gRPC server under a name and returns how to stop it.
func (n *network) serve(name string, srv *grpc.Server) (stop func()) {
	l := bufconn.Listen(64 << 10)
	n.mu.Lock()
	n.listeners[name] = l
	n.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	return func() {
		n.mu.Lock()
		delete(n.listeners, name)
		n.mu.Unlock()
		srv.Stop()
		<-done
	}
}

// fixture is a cluster with one or more servers; s1 leads.
type fixture struct {
	*model
	t       testing.TB
	net     *network
	servers map[string]*testServer
}

type testServer struct {
	replica *replica
	service *Service
	hub     *Hub
	client  schedulerv1.SchedulerServiceClient
	agents  agentv1.AgentServiceClient
	conn    *grpc.ClientConn
	stop    func() // idempotent
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newFixture(t testing.TB, ids ...string) *fixture {
	t.Helper()
	if len(ids) == 0 {
		ids = []string{"s1"}
	}
	f := &fixture{model: newModel(t), t: t, net: &network{listeners: map[string]*bufconn.Listener{}}, servers: map[string]*testServer{}}
	var all []Server
	for _, id := range ids {
		all = append(all, Server{ID: id, Address: "passthrough:///" + id})
	}
	for _, id := range ids {
		r := &replica{model: f.model, id: id}
		hub := NewHub(HubConfig{Replica: r, ServerID: id, Servers: all, Logger: quiet()})
		svc := NewService(Config{
			Replica: r, ServerID: id, Servers: all, Version: "test", Logger: quiet(),
			DialOptions: f.net.options(), AgentDialOptions: f.net.options(),
		}, hub)
		srv := grpc.NewServer(svc.ServerOptions()...)
		Register(srv, svc, hub)
		stop := f.net.serve(id, srv)
		conn, err := grpc.NewClient("passthrough:///"+id, f.net.options()...)
		if err != nil {
			t.Fatal(err)
		}
		ts := &testServer{replica: r, service: svc, hub: hub, conn: conn, client: schedulerv1.NewSchedulerServiceClient(conn), agents: agentv1.NewAgentServiceClient(conn)}
		ts.stop = sync.OnceFunc(func() {
			_ = conn.Close()
			svc.Close()
			stop()
		})
		f.servers[id] = ts
		t.Cleanup(ts.stop)
	}
	return f
}

func (f *fixture) s1() *testServer { return f.servers["s1"] }

// within bounds a test's calls.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func submitRequest(id string) *schedulerv1.SubmitJobRequest {
	return &schedulerv1.SubmitJobRequest{RequestId: id, User: "ann", Spec: &schedulerv1.JobSpec{Name: "train", Gpus: 2, Command: []string{"true"}}}
}

// node registers a node with GPUs named after it.
func (m *model) node(id string, gpus int) {
	m.t.Helper()
	m.apply(&cluster.RegisterNode{Node: nodeOf(hello(id, gpus))})
}

func hello(id string, gpus int) *agentv1.Hello {
	h := &agentv1.Hello{
		NodeId: id, Name: "node-" + id, BootId: "boot-" + id, Incarnation: 1,
		Address: "passthrough:///agent-" + id, Host: "host-" + id, CpuMilli: 64000, MemoryBytes: 1 << 36, Version: "test",
	}
	for i := range gpus {
		h.Gpus = append(h.Gpus, &agentv1.GPU{Uuid: fmt.Sprintf("%s-gpu%d", id, i), Type: "h100", MemoryBytes: 80 << 30, Healthy: true})
	}
	return h
}

// submit makes a job straight in the state.
func (m *model) submit(edit func(*cluster.JobSpec)) cluster.JobID {
	m.t.Helper()
	spec := &cluster.JobSpec{Name: "train", GPUs: 2, Command: []string{"true"}, Priority: 50, Warn: cluster.DefaultWarn, Grace: cluster.DefaultGrace}
	if edit != nil {
		edit(spec)
	}
	spec.Normalize()
	return m.apply(&cluster.SubmitJob{RequestID: fmt.Sprintf("r%d", m.State().Index()), User: "ann", Spec: spec})[0].Job
}

// start places a job's workers in order: "node:gpu" with one GPU for each rank.
func (m *model) start(id cluster.JobID, gpus ...string) {
	m.t.Helper()
	cmd := &cluster.StartJob{Job: id, Epoch: m.State().Job(id).Epoch + 1}
	for i, g := range gpus {
		var node string
		var n int
		if _, err := fmt.Sscanf(g, "%1s:%d", &node, &n); err != nil {
			m.t.Fatal(err)
		}
		cmd.Workers = append(cmd.Workers, cluster.Placement{Rank: cluster.Rank(i), Node: cluster.NodeID(node), GPUs: []string{fmt.Sprintf("%s-gpu%d", node, n)}})
	}
	m.apply(cmd)
}

// report tells the state of ranks of the present epoch, each on its node.
func (m *model) report(id cluster.JobID, st cluster.WorkerState, code int32, ranks ...int) {
	m.t.Helper()
	for _, r := range ranks {
		j := m.State().Job(id)
		m.apply(&cluster.ReportWorkers{Node: j.Workers[r].Node, Workers: []cluster.WorkerReport{
			{Job: id, Epoch: j.Epoch, Rank: cluster.Rank(r), State: st, ExitCode: code},
		}})
	}
}
