package telemetry_test

import (
	"bytes"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/telemetry"
)

// scrape returns the text that a Prometheus server would read.
func scrape(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape: status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// series returns the lines of the text that are no comment, for names with the prefix.
func series(text, prefix string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

func node(t *testing.T, s telemetry.Snapshot) (*telemetry.Metrics, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	m, err := telemetry.New(reg, "n1", func() telemetry.Snapshot { return s })
	if err != nil {
		t.Fatal(err)
	}
	return m, reg
}

// busy is a snapshot in which every series exists.
func busy() telemetry.Snapshot {
	card := func(uuid string, index int, healthy bool) gpu.GPU {
		return gpu.GPU{UUID: uuid, Index: index, Type: "h100", MemBytes: 80 << 30, Health: gpu.Health{Healthy: healthy}}
	}
	return telemetry.Snapshot{
		GPUs: []gpu.GPU{card("GPU-a", 0, true), card("GPU-b", 1, true), card("GPU-c", 2, false), card("GPU-d", 3, false)},
		Samples: []gpu.Sample{
			{
				UUID: "GPU-a", UtilPct: new(97.0), MemUsedBytes: new(int64(1 << 30)), PowerWatts: new(650.5),
				TempCelsius: new(66.0), SMClockMHz: new(1980.0),
			},
			{UUID: "GPU-b", UtilPct: new(0.0)},
			{UUID: "GPU-gone", UtilPct: new(1.0)},
		},
		Held:    map[string]int{"GPU-a": 1000, "GPU-d": 250},
		Workers: map[telemetry.WorkerState]int{telemetry.WorkerRunning: 2, "no such state": 9},
		Rings: []telemetry.Ring{
			{Job: 7, Rank: 3, Calls: 12, Bytes: 4800, Busy: 1500 * time.Millisecond},
			{Job: 7, Rank: 3, Calls: 99}, // of an older epoch that still ends
		},
		Connected: true,
	}
}

func TestSeriesOfABusyNode(t *testing.T) {
	t.Parallel()
	m, reg := node(t, busy())
	m.Launched(telemetry.LaunchStarted)
	m.Launched(telemetry.LaunchStarted)
	m.Exited(telemetry.ExitKilled)
	got := series(scrape(t, reg), "gangline_")
	want := []string{
		`gangline_agent_checkpoint_pushed_bytes_total{node="n1"} 0`,
		`gangline_agent_checkpoint_pushes_total{node="n1",outcome="done"} 0`,
		`gangline_agent_checkpoint_pushes_total{node="n1",outcome="failed"} 0`,
		`gangline_agent_connected{node="n1"} 1`,
		`gangline_agent_storage_healthy{node="n1"} 1`,
		`gangline_agent_storage_probe_seconds{node="n1"} 0`,
		`gangline_agent_worker_exits_total{node="n1",outcome="failed"} 0`,
		`gangline_agent_worker_exits_total{node="n1",outcome="killed"} 1`,
		`gangline_agent_worker_exits_total{node="n1",outcome="lost"} 0`,
		`gangline_agent_worker_exits_total{node="n1",outcome="stopped"} 0`,
		`gangline_agent_worker_exits_total{node="n1",outcome="succeeded"} 0`,
		`gangline_agent_worker_launches_total{node="n1",outcome="adopted"} 0`,
		`gangline_agent_worker_launches_total{node="n1",outcome="failed"} 0`,
		`gangline_agent_worker_launches_total{node="n1",outcome="started"} 2`,
		`gangline_agent_workers{node="n1",state="exited"} 0`,
		`gangline_agent_workers{node="n1",state="lost"} 0`,
		`gangline_agent_workers{node="n1",state="running"} 2`,
		`gangline_agent_workers{node="n1",state="stopping"} 0`,
		`gangline_gpu_healthy{gpu="0",node="n1",type="h100",uuid="GPU-a"} 1`,
		`gangline_gpu_healthy{gpu="1",node="n1",type="h100",uuid="GPU-b"} 1`,
		`gangline_gpu_healthy{gpu="2",node="n1",type="h100",uuid="GPU-c"} 0`,
		`gangline_gpu_healthy{gpu="3",node="n1",type="h100",uuid="GPU-d"} 0`,
		`gangline_gpu_held_ratio{gpu="0",node="n1",type="h100",uuid="GPU-a"} 1`,
		`gangline_gpu_held_ratio{gpu="1",node="n1",type="h100",uuid="GPU-b"} 0`,
		`gangline_gpu_held_ratio{gpu="2",node="n1",type="h100",uuid="GPU-c"} 0`,
		`gangline_gpu_held_ratio{gpu="3",node="n1",type="h100",uuid="GPU-d"} 0.25`,
		`gangline_gpu_memory_total_bytes{gpu="0",node="n1",type="h100",uuid="GPU-a"} 8.589934592e+10`,
		`gangline_gpu_memory_total_bytes{gpu="1",node="n1",type="h100",uuid="GPU-b"} 8.589934592e+10`,
		`gangline_gpu_memory_total_bytes{gpu="2",node="n1",type="h100",uuid="GPU-c"} 8.589934592e+10`,
		`gangline_gpu_memory_total_bytes{gpu="3",node="n1",type="h100",uuid="GPU-d"} 8.589934592e+10`,
		`gangline_gpu_memory_used_bytes{gpu="0",node="n1",type="h100",uuid="GPU-a"} 1.073741824e+09`,
		`gangline_gpu_power_watts{gpu="0",node="n1",type="h100",uuid="GPU-a"} 650.5`,
		`gangline_gpu_sm_clock_hertz{gpu="0",node="n1",type="h100",uuid="GPU-a"} 1.98e+09`,
		`gangline_gpu_temperature_celsius{gpu="0",node="n1",type="h100",uuid="GPU-a"} 66`,
		`gangline_gpu_utilization_ratio{gpu="0",node="n1",type="h100",uuid="GPU-a"} 0.97`,
		`gangline_gpu_utilization_ratio{gpu="1",node="n1",type="h100",uuid="GPU-b"} 0`,
		`gangline_node_gpus{node="n1",state="free"} 1`,
		`gangline_node_gpus{node="n1",state="held"} 2`,
		`gangline_node_gpus{node="n1",state="unhealthy"} 1`,
		`gangline_ring_busy_seconds_total{job="7",node="n1",rank="3"} 1.5`,
		`gangline_ring_bytes_total{job="7",node="n1",rank="3"} 4800`,
		`gangline_ring_calls_total{job="7",node="n1",rank="3"} 12`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestNoSampleNoSeries(t *testing.T) {
	t.Parallel()
	s := busy()
	s.Samples, s.Connected = nil, false
	s.GPUs[0].MemBytes = 0
	_, reg := node(t, s)
	text := scrape(t, reg)
	for _, name := range []string{"utilization_ratio", "memory_used_bytes", "power_watts", "temperature_celsius", "sm_clock_hertz"} {
		if got := series(text, "gangline_gpu_"+name); len(got) != 0 {
			t.Errorf("without samples there are series: %v", got)
		}
	}
	if got := series(text, "gangline_gpu_memory_total_bytes"); len(got) != 3 {
		t.Errorf("memory size of an unknown size is shown: %v", got)
	}
	if got := series(text, "gangline_agent_connected"); len(got) != 1 || !strings.HasSuffix(got[0], " 0") {
		t.Errorf("a disconnected agent shows %v", got)
	}
}

func TestARepeatedGPUDoesNotFailTheScrape(t *testing.T) {
	t.Parallel()
	s := busy()
	s.GPUs = append(s.GPUs, s.GPUs[0])
	_, reg := node(t, s)
	if got := series(scrape(t, reg), "gangline_gpu_healthy"); len(got) != 4 {
		t.Errorf("got %d series, want 4: %v", len(got), got)
	}
}

func TestNewRefusesBadInput(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	empty := func() telemetry.Snapshot { return telemetry.Snapshot{} }
	if _, err := telemetry.New(reg, "", empty); err == nil {
		t.Error("New without a node: no error")
	}
	if _, err := telemetry.New(reg, "n1", nil); err == nil {
		t.Error("New without a snapshot: no error")
	}
	if _, err := telemetry.New(reg, "n1", empty); err != nil {
		t.Error(err)
	}
	if _, err := telemetry.New(reg, "n1", empty); err == nil || !strings.Contains(err.Error(), "n1") {
		t.Errorf("second New on one registry = %v, want an error that names the node", err)
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	_, reg := node(t, busy())
	problems, err := promlint.New(strings.NewReader(scrape(t, reg))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: apt-get install prometheus")
	}
	_, reg := node(t, busy())
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = bytes.NewBufferString(scrape(t, reg))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
