package scheduler

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// TestMetrics: all series that the product promises are there, with the labels
// promised, and promtool has nothing to say.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(t.TempDir()))
	s.joinNode("n1", 2)
	id := s.submit("one")
	poll(t, "the job gets its GPU", func() bool { return s.job(id).GetState() != schedulerv1.JobState_JOB_STATE_PENDING })
	code, text := s.get("/metrics")
	if code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	contains(t, text,
		"\ngangline_jobs{queue=\"research/vision\",state=\"Starting\"} 1\n",
		"\ngangline_gpus{state=\"held\",type=\"h100\"} 1\n",
		"\ngangline_gpus{state=\"free\",type=\"h100\"} 1\n",
		"\ngangline_nodes{state=\"Ready\"} 1\n",
		"\ngangline_job_wait_seconds_count 1\n",
		"\ngangline_step_seconds_bucket{",
		"\ngangline_raft_is_leader 1\n",
		"\ngangline_raft_term ",
		"\ngangline_raft_applied_index ",
		"\ngangline_raft_commit_seconds_count ",
		"\ngangline_agents_connected 1\n",
		"\ngangline_api_requests_total{code=\"OK\",method=\"/gangline.scheduler.v1.SchedulerService/SubmitJob\"} 1\n",
		"\ngo_goroutines ",
	)
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: apt-get install prometheus")
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestServices: health, reflection and /healthz answer.
func TestServices(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(t.TempDir()))
	s.submit("leader is found")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, service := range []string{"", "gangline.scheduler.v1.SchedulerService", "gangline.agent.v1.AgentService"} {
		resp, err := grpc_health_v1.NewHealthClient(s.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, resp, err)
		}
	}
	if code, text := s.get("/healthz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("/healthz: %d %q", code, text)
	}
	if code, _ := s.get("/other"); code != http.StatusNotFound {
		t.Errorf("/other: %d", code)
	}
	stream, err := grpc_reflection_v1.NewServerReflectionClient(s.conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{ListServices: "*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	contains(t, list.String(), "gangline.scheduler.v1.SchedulerService", "gangline.agent.v1.AgentService", "grpc.health.v1.Health")
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the reflection stream ends with %v", err)
	}
}

// TestRestart: jobs, numbers and request ids outlive the server, also on another port.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, testConfig(dir))
	first, second := s.submit("one"), s.submit("two")
	s.stop()
	s = start(t, testConfig(dir))
	if j := s.job(first); j.GetSpec().GetName() != "job-one" || j.GetUser() != "tester" {
		t.Errorf("job %d is now %v", first, j)
	}
	if again := s.submit("two"); again != second {
		t.Errorf("the retry after the restart made job %d, want %d", again, second)
	}
	if third := s.submit("three"); third <= second {
		t.Errorf("job %d follows job %d", third, second)
	}
}

// TestClientVanishes: a watch whose client's machine is gone ends on the
// server, which goes on.
func TestClientVanishes(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(t.TempDir()))
	id := s.submit("watched")
	var raw net.Conn
	conn, err := grpc.NewClient("passthrough:///"+s.api, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", address)
			raw = c
			return c, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := schedulerv1.NewSchedulerServiceClient(conn)
	watch, err := client.WatchJobs(ctx, &schedulerv1.WatchJobsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	logs, err := client.StreamLogs(ctx, &schedulerv1.StreamLogsRequest{JobId: id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := logs.Recv(); err != nil { // the note that the job waits
		t.Fatal(err)
	}
	// A reset, as when a machine is switched off and its peer gets no goodbye.
	if err := raw.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = raw.Close()
	_ = conn.Close() // no second connection
	for _, method := range []string{"WatchJobs", "StreamLogs"} {
		want := "\ngangline_api_requests_total{code=\"Canceled\",method=\"/gangline.scheduler.v1.SchedulerService/" + method + "\"} 1\n"
		poll(t, method+" has ended on the server", func() bool {
			_, text := s.get("/metrics")
			return strings.Contains(text, want)
		})
	}
	s.submit("another")
}

// TestHugeMessage: 100 MB are refused by size; the connection goes on.
func TestHugeMessage(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(t.TempDir()))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := s.client.SubmitJob(ctx, &schedulerv1.SubmitJobRequest{
		RequestId: "huge", Spec: &schedulerv1.JobSpec{Command: []string{string(bytes.Repeat([]byte("x"), 100<<20))}},
	}, grpc.WaitForReady(true))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("100 MB: %v", err)
	}
	s.submit("after it")
}

// TestRefusals: what cannot work is refused before anything is touched, and
// says what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(t.TempDir()))
	contains(t, errorOf(t, func(c *Config) { c.Listen = s.api }), "listen "+s.api, "the port is taken", "choose another --listen")
	contains(t, errorOf(t, func(c *Config) { c.MetricsListen = s.metrics }), "metrics-listen "+s.metrics, "choose another --metrics-listen")
	contains(t, errorOf(t, func(c *Config) { c.Listen = "0.0.0.0:0" }), "no TLS", "--tls-cert", "--insecure")
	contains(t, errorOf(t, func(c *Config) { c.Listen = "nowhere"; c.Lease = 0; c.Tick = 0; c.DataDir = "" }), "listen:", "lease:", "tick:", "data-dir:")
	for name, change := range map[string]func(*Config){
		"insecure": func(c *Config) { c.Insecure = true },
		"TLS":      func(c *Config) { c.ServerTLS = plain() },
	} {
		cfg := testConfig(t.TempDir())
		cfg.Listen = "0.0.0.0:0"
		change(&cfg)
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDataDirectoryInUse: two servers never share one.
func TestDataDirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, testConfig(dir))
	contains(t, errorOf(t, func(c *Config) { c.DataDir = testConfig(dir).DataDir }), "in use by another server", "stop it, or give this one its own directory")
}
