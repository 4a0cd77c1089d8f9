package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/gangline/gangline/nodeagent"
)

// TestDev: one command is a cluster; stopped and started again, its jobs and
// running workers are still there.
func TestDev(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{})
	dev := &testProc{name: "dev", dir: filepath.Join(c.dir, "dev")}
	dev.args = []string{"dev", "--state-dir", dev.dir, "--gpus", "fake:2xA100", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--agent-metrics-listen", ""}
	c.servers = append(c.servers, dev)
	begin := func(times int) {
		c.start(dev)
		api := regexp.MustCompile(`(?m)^  API +(\S+)$`)
		poll(t, "dev tells where it is", func() bool { return len(api.FindAllString(dev.log(), -1)) == times })
		all := api.FindAllStringSubmatch(dev.log(), -1)
		dev.addr = all[times-1][1]
		if !strings.Contains(dev.log(), "export GANGLINE_SERVER="+dev.addr) {
			t.Errorf("dev does not say how to reach %s:\n%s", dev.addr, dev.log())
		}
		c.awaitNodes(1)
	}
	begin(1)
	r := c.cli("run", "--gpus", "2", "--", "sh", "-c", "echo rank $RANK of $WORLD_SIZE")
	if r.code != 0 || !strings.Contains(r.out, "[1] rank 1 of 2\n") {
		t.Errorf("run: %+v", r)
	}
	script, release := c.waiting("long", "exit 0")
	id := c.submit("--", "sh", "-c", script)
	workers := c.workers("long", 1, 1)
	c.awaitState(id, "Running")
	dev.signal(t, syscall.SIGINT)
	if code := dev.cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(dev.log(), "stopped; running workers go on") {
		t.Errorf("interrupted: exit code %d\n%s", code, dev.log())
	}
	allAlive(t, "the end of dev", workers)
	begin(2)
	allAlive(t, "the return of dev", workers)
	release.raise(t)
	if j := c.awaitState(id, "Succeeded"); j.GetEpoch() != 1 {
		t.Errorf("the job was started again: %v", j)
	}
}

// TestAgentMetrics: the agent's page has the series promised, each GPU's
// utilisation among them, and promtool has nothing to say.
func TestAgentMetrics(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1})
	cfg := nodeagent.DefaultConfig()
	cfg.Name, cfg.StateDir, cfg.Servers = "n1", filepath.Join(c.dir, "n1"), []string{c.servers[0].addr}
	cfg.Listen, cfg.MetricsListen, cfg.GPUs = "127.0.0.1:0", "127.0.0.1:0", "fake:2xH100"
	cfg.Logger = slog.New(slog.DiscardHandler)
	a, err := nodeagent.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	c.awaitNodes(1)
	script, release := c.waiting("load", "exit 0")
	id := c.submit("--", "sh", "-c", script)
	c.awaitState(id, "Running")
	var page string
	poll(t, "the page shows a busy node", func() bool {
		page = fetch(t, "http://"+a.MetricsAddress()+"/metrics")
		return strings.Contains(page, `gangline_node_gpus{node="n1",state="held"} 1`)
	})
	for _, series := range []string{
		`gangline_gpu_utilization_ratio{gpu="0",node="n1",type="h100",uuid="GPU-`, `gangline_gpu_utilization_ratio{gpu="1",node="n1",type="h100",uuid="GPU-`,
		"gangline_gpu_memory_used_bytes{", "gangline_gpu_temperature_celsius{", `gangline_agent_workers{node="n1",state="running"} 1`,
		`gangline_agent_connected{node="n1"} 1`, "go_goroutines ",
	} {
		if !strings.Contains(page, "\n"+series) {
			t.Errorf("no series %s in\n%s", series, page)
		}
	}
	release.raise(t)
	c.awaitState(id, "Succeeded")
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: apt-get install prometheus")
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(page)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRunInterrupted: Ctrl-C cancels the job of "run", waits for its end and gives 130.
func TestRunInterrupted(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 1})
	script, _ := c.waiting("interrupted", "exit 0")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var errw syncBuffer
	code := make(chan int, 1)
	go func() {
		code <- execute(ctx, []string{"--server", c.address(), "run", "--", "sh", "-c", script}, strings.NewReader(""), io.Discard, &errw)
	}()
	workers := c.workers("interrupted", 1, 1)
	interrupt()
	if got := <-code; got != exitInterrupted {
		t.Errorf("exit code %d, want %d: %s", got, exitInterrupted, errw.String())
	}
	if workers[0].alive() {
		t.Error("the worker still runs")
	}
	if j := c.job(1); stateName(j.GetState()) != "Cancelled" || !strings.Contains(j.GetReason(), "interrupted") {
		t.Errorf("got %v", j)
	}
	if out := errw.String(); !strings.Contains(out, "interrupted: cancels job 1 and waits for it to stop") || !strings.Contains(out, "job 1 is Cancelled") {
		t.Errorf("told %q", out)
	}
}
