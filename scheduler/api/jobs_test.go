package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// wantStatus fails unless err has the code and all the words.
func wantStatus(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want code %s", err, code)
	}
	for _, w := range words {
		if !strings.Contains(status.Convert(err).Message(), w) {
			t.Errorf("message %q lacks %q", status.Convert(err).Message(), w)
		}
	}
}

func TestSubmit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := within(t)
	one, err := f.s1().client.SubmitJob(ctx, submitRequest("a"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.s1().client.SubmitJob(ctx, submitRequest("a"))
	if err != nil {
		t.Fatal(err)
	}
	if one.GetDuplicate() || !again.GetDuplicate() || one.GetJob().GetId() != again.GetJob().GetId() {
		t.Errorf("a retry gave job %d (duplicate %t), the first call job %d", again.GetJob().GetId(), again.GetDuplicate(), one.GetJob().GetId())
	}
	if one.GetJob().GetUser() != "ann" || one.GetJob().GetSpec().GetPriority() != 50 || one.GetJob().GetSpec().GetWarnMs() != 30_000 || one.GetJob().GetSpec().GetGraceMs() != 10_000 {
		t.Errorf("defaults are missing in %v", one.GetJob())
	}
	if one.GetIndex() == 0 || one.GetIndex() > f.State().Index() {
		t.Errorf("index %d, the state is at %d", one.GetIndex(), f.State().Index())
	}
}

func TestSubmitRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.node("a", 4)
	for name, c := range map[string]struct {
		edit func(*schedulerv1.SubmitJobRequest)
		code codes.Code
		want []string
	}{
		"no request id": {func(r *schedulerv1.SubmitJobRequest) { r.RequestId = "" }, codes.InvalidArgument, []string{"request_id"}},
		"no spec":       {func(r *schedulerv1.SubmitJobRequest) { r.Spec = nil }, codes.InvalidArgument, []string{"spec"}},
		"all problems at once": {func(r *schedulerv1.SubmitJobRequest) {
			r.Spec.Gpus, r.Spec.Name, r.Spec.Command, r.Spec.Queue = 0, "", nil, "a//b"
		}, codes.InvalidArgument, []string{"gpus", "name", "command", "queue"}},
		"unknown launch mode": {func(r *schedulerv1.SubmitJobRequest) { r.Spec.Launch = 258 }, codes.InvalidArgument, []string{"launch"}},
		"time that overflows": {func(r *schedulerv1.SubmitJobRequest) { r.Spec.TimeLimitMs = 1 << 62 }, codes.InvalidArgument, []string{"time_limit"}},
		"never fits":          {func(r *schedulerv1.SubmitJobRequest) { r.Spec.Gpus = 5 }, codes.FailedPrecondition, []string{"can never start", "4", "h100"}},
		"user too long":       {func(r *schedulerv1.SubmitJobRequest) { r.User = strings.Repeat("u", 129) }, codes.InvalidArgument, []string{"user"}},
	} {
		req := submitRequest("x")
		c.edit(req)
		_, err := f.s1().client.SubmitJob(within(t), req)
		t.Run(name, func(t *testing.T) { wantStatus(t, err, c.code, c.want...) })
	}
	if f.State().Jobs() != 0 {
		t.Errorf("%d jobs were made", f.State().Jobs())
	}
}

func TestMessageTooLarge(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	req := submitRequest("big")
	req.Spec.Command = []string{strings.Repeat("x", 100<<20)}
	_, err := f.s1().client.SubmitJob(within(t), req)
	wantStatus(t, err, codes.ResourceExhausted, "larger than max", "4194304")
	if _, err := f.s1().client.SubmitJob(within(t), submitRequest("small")); err != nil {
		t.Errorf("the server does not answer after it: %v", err)
	}
}

func TestCancelAndGet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := within(t)
	id := f.submit(nil)
	got, err := f.s1().client.CancelJob(ctx, &schedulerv1.CancelJobRequest{Id: uint64(id), User: "bob", Reason: "wrong data"})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetJob().GetState() != schedulerv1.JobState_JOB_STATE_CANCELLED || got.GetJob().GetReason() != "cancelled by bob: wrong data" {
		t.Errorf("got %v", got.GetJob())
	}
	_, err = f.s1().client.CancelJob(ctx, &schedulerv1.CancelJobRequest{Id: 99})
	wantStatus(t, err, codes.NotFound, "job 99")
	_, err = f.s1().client.CancelJob(ctx, &schedulerv1.CancelJobRequest{Id: uint64(id), Reason: strings.Repeat("x", 2000)})
	wantStatus(t, err, codes.InvalidArgument, "reason")
	for _, stale := range []bool{false, true} {
		_, err = f.s1().client.GetJob(ctx, &schedulerv1.GetJobRequest{Id: 99, Stale: stale})
		wantStatus(t, err, codes.NotFound, "job 99")
		one, err := f.s1().client.GetJob(ctx, &schedulerv1.GetJobRequest{Id: uint64(id), Stale: stale})
		if err != nil || one.GetJob().GetId() != uint64(id) || one.GetIndex() != f.State().Index() {
			t.Errorf("stale %t: got %v, %v", stale, one, err)
		}
	}
}

func TestSpecRoundTrip(t *testing.T) {
	t.Parallel()
	prio := int32(0)
	want := &cluster.JobSpec{
		Name: "n", Queue: "a/b", Priority: prio, GPUs: 8, GPUsPerNode: 4, GPUTypes: []string{"h100"}, CPUPerGPU: 1500, MemPerGPU: 1 << 30,
		TimeLimit: time.Hour, Launch: cluster.LaunchPerNode, Command: []string{"a", "b"}, Env: []cluster.EnvVar{{Name: "K", Value: "v"}},
		Dir: new("/d"), Retries: 3, Preemptible: true, Warn: time.Second, Grace: 2 * time.Second, KeepCkpts: 4,
		MinGPUs: 4, GPUMilli: 500, Topology: cluster.TopologyWish{Level: "rack", Required: true},
		Selector: []cluster.Label{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}}, Tolerations: []string{"k", "k=v"},
		Array: cluster.ArraySpec{First: 2, Last: 9, Step: 3, Parallel: 2},
		Checkpoints: &cluster.CheckpointPolicy{
			Interval: time.Minute, Steps: 2, Auto: true, KeepEvery: 3, KeepBest: []cluster.KeepBest{{Metric: "loss", Lowest: true, Count: 4}}, PushNth: 5,
		},
	}
	if diff := cmp.Diff(want, specFromProto(specToProto(want))); diff != "" {
		t.Errorf("spec changed on its way (-want +got):\n%s", diff)
	}
}

// TestEnums pins the numbers that the conversions rely on.
func TestEnums(t *testing.T) {
	t.Parallel()
	for _, st := range cluster.JobStates() {
		if got := schedulerv1.JobState(st).String(); got != "JOB_STATE_"+strings.ToUpper(st.String()) {
			t.Errorf("job state %s converts to %s", st, got)
		}
	}
	for st := cluster.WorkerAssigned; st <= cluster.WorkerLost; st++ {
		if got := schedulerv1.WorkerState(st).String(); got != "WORKER_STATE_"+strings.ToUpper(st.String()) {
			t.Errorf("worker state %s converts to %s", st, got)
		}
	}
	for st := cluster.NodeReady; st <= cluster.NodeLost; st++ {
		if got := schedulerv1.NodeState(st).String(); got != "NODE_STATE_"+strings.ToUpper(st.String()) {
			t.Errorf("node state %s converts to %s", st, got)
		}
	}
}

func TestCaller(t *testing.T) {
	t.Parallel()
	s := &Service{cfg: Config{Servers: []Server{{ID: "s2"}}}}
	withCert := func(cn string, verified bool) context.Context {
		info := credentials.TLSInfo{}
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: cn}}
		info.State.PeerCertificates = []*x509.Certificate{cert}
		if verified {
			info.State = tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
		}
		return peer.NewContext(context.Background(), &peer.Peer{AuthInfo: info})
	}
	hop := func(ctx context.Context) context.Context {
		return metadata.NewIncomingContext(ctx, metadata.Pairs(forwardedKey, "s2"))
	}
	for name, c := range map[string]struct {
		ctx  context.Context
		want string
	}{
		"no identity":                {context.Background(), "claimed"},
		"certificate wins":           {withCert("ann", true), "ann"},
		"unverified is none":         {withCert("ann", false), "claimed"},
		"a server speaks for others": {hop(withCert("s2", true)), "claimed"},
		"others do not":              {hop(withCert("ann", true)), "ann"},
	} {
		if got, err := s.caller(c.ctx, "claimed"); got != c.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
		}
	}
	if got, _ := s.caller(context.Background(), ""); got != unknownUser {
		t.Errorf("nobody is %q", got)
	}
}

func TestPanicAndMetrics(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	reg := prometheus.NewPedanticRegistry()
	s := NewService(Config{Replica: &replica{model: f.model, id: "s1"}, ServerID: "s1", Logger: quiet(), Registerer: reg}, f.s1().hub)
	defer s.Close()
	_, err := s.unary(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/x/Y"}, func(context.Context, any) (any, error) { panic("boom") })
	wantStatus(t, err, codes.Internal, "its log says why")
	if strings.Contains(err.Error(), "boom") {
		t.Errorf("%v tells internals", err)
	}
	err = s.stream(nil, nil, &grpc.StreamServerInfo{FullMethod: "/x/Z"}, func(any, grpc.ServerStream) error { panic("boom") })
	wantStatus(t, err, codes.Internal)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, fam := range families {
		got[fam.GetName()] = len(fam.GetMetric())
	}
	if diff := cmp.Diff(map[string]int{"gangline_api_requests_total": 2, "gangline_api_request_seconds": 1}, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestHealthWatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t)
		defer stopAll(f)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		w, err := grpc_health_v1.NewHealthClient(f.s1().conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
			grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING, grpc_health_v1.HealthCheckResponse_SERVING,
		} {
			got, err := w.Recv()
			if err != nil || got.GetStatus() != want {
				t.Fatalf("got %v, %v, want %s", got, err, want)
			}
			if want == grpc_health_v1.HealthCheckResponse_SERVING {
				f.lead("")
			} else {
				f.lead("s1")
			}
		}
	})
}

func TestHealthClusterNodes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.node("b", 1)
	f.node("a", 2)
	ctx := within(t)
	hc := grpc_health_v1.NewHealthClient(f.s1().conn)
	check := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if got, err := hc.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || got.GetStatus() != want {
			t.Errorf("health is %v, %v, want %s", got, err, want)
		}
	}
	check(grpc_health_v1.HealthCheckResponse_SERVING)
	f.lead("")
	check(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	c, err := f.s1().client.GetCluster(ctx, &schedulerv1.GetClusterRequest{})
	if err != nil || c.GetClusterId() != "c1" || c.GetTerm() != 7 || c.GetLeaderId() != "" || len(c.GetServers()) != 1 || c.GetServerId() != "s1" || c.GetStateHash() == "" {
		t.Errorf("cluster is %v, %v", c, err)
	}
	nodes, err := f.s1().client.ListNodes(ctx, &schedulerv1.ListNodesRequest{Stale: true})
	if err != nil || len(nodes.GetNodes()) != 2 || nodes.GetNodes()[0].GetName() != "node-a" || nodes.GetNodes()[0].GetHeartbeatAgeMs() != -1 {
		t.Errorf("nodes are %v, %v", nodes, err)
	}
	_, err = hc.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nope"})
	wantStatus(t, err, codes.NotFound)
}
