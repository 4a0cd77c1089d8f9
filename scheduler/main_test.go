package scheduler

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// TestMain fails if a server leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait; it is long, for loaded machines.
const patience = 30 * time.Second

// testServer is Run in this process, with a client.
type testServer struct {
	t            *testing.T
	api, metrics string // addresses
	conn         *grpc.ClientConn
	client       schedulerv1.SchedulerServiceClient
	cancel       context.CancelFunc
	result       chan error
}

func testConfig(dir string) Config {
	cfg := DefaultConfig()
	cfg.Listen, cfg.MetricsListen, cfg.DataDir, cfg.Version = "127.0.0.1:0", "127.0.0.1:0", filepath.Join(dir, "data"), "test"
	cfg.Logger = slog.New(slog.DiscardHandler)
	return cfg
}

// start runs a server and waits until it serves. The test stops it, or its end does.
func start(t *testing.T, cfg Config) *testServer {
	t.Helper()
	s := &testServer{t: t, result: make(chan error, 1)}
	ready := make(chan struct{})
	cfg.Ready = func(api, metrics string) {
		s.api, s.metrics = api, metrics
		close(ready)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() { s.result <- Run(ctx, cfg) }()
	select {
	case <-ready:
	case err := <-s.result:
		cancel()
		t.Fatalf("the server does not start: %v", err)
	case <-time.After(patience):
		cancel()
		t.Fatal("the server does not serve")
	}
	conn, err := grpc.NewClient(s.api, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	s.conn, s.client = conn, schedulerv1.NewSchedulerServiceClient(conn)
	t.Cleanup(s.stop)
	return s
}

// stop ends the server and its client, once.
func (s *testServer) stop() {
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	_ = s.conn.Close() // nothing is lost
	select {
	case err := <-s.result:
		if err != nil {
			s.t.Errorf("the server ended with %v", err)
		}
	case <-time.After(patience):
		s.t.Fatal("the server does not end")
	}
}

// get fetches a page of the metrics' server.
func (s *testServer) get(path string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// poll waits until f is true.
func poll(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// submit submits a job of one GPU and returns its number.
func (s *testServer) submit(request string) uint64 {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := s.client.SubmitJob(ctx, &schedulerv1.SubmitJobRequest{
		RequestId: request, User: "tester",
		Spec: &schedulerv1.JobSpec{Name: "job-" + request, Queue: "research/vision", Gpus: 1, Command: []string{"true"}},
	}, grpc.WaitForReady(true))
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.GetJob().GetId()
}

func (s *testServer) job(id uint64) *schedulerv1.Job {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := s.client.GetJob(ctx, &schedulerv1.GetJobRequest{Id: id}, grpc.WaitForReady(true))
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.GetJob()
}

// joinNode is an agent in few words: it introduces a node with so many GPUs
// and reads orders until the server ends. It runs nothing.
func (s *testServer) joinNode(name string, gpus int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(cancel)
	hello := &agentv1.Hello{NodeId: "id-" + name, Name: name, BootId: "boot", Incarnation: 1, Address: "127.0.0.1:1", Host: "127.0.0.1"}
	for i := range gpus {
		hello.Gpus = append(hello.Gpus, &agentv1.GPU{Uuid: fmt.Sprintf("GPU-%s-%d", name, i), Type: "h100", MemoryBytes: 80 << 30, Healthy: true})
	}
	var stream grpc.BidiStreamingClient[agentv1.ConnectRequest, agentv1.ConnectResponse]
	poll(s.t, "the leader welcomes "+name, func() bool {
		var err error
		if stream, err = agentv1.NewAgentServiceClient(s.conn).Connect(ctx, grpc.WaitForReady(true)); err != nil {
			s.t.Fatal(err)
		}
		err = stream.Send(&agentv1.ConnectRequest{Message: &agentv1.ConnectRequest_Hello{Hello: hello}})
		if err != nil && !errors.Is(err, io.EOF) { // EOF: the server has ended the stream, Recv knows why
			s.t.Fatal(err)
		}
		m, err := stream.Recv()
		return err == nil && m.GetWelcome() != nil // else a redirect: nobody leads yet
	})
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
}

// errorOf runs a server that must not start.
func errorOf(t *testing.T, change func(*Config)) string {
	t.Helper()
	cfg := testConfig(t.TempDir())
	change(&cfg)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := Run(ctx, cfg)
	if err == nil {
		t.Fatal("the server started")
	}
	return err.Error()
}

// plain is a configuration for TLS that is never used to talk.
func plain() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS13} }

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("does not say %q:\n%s", p, text)
		}
	}
}
