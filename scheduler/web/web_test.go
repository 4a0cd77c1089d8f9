package web

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gangline/gangline/scheduler/cluster"
)

func serve(t *testing.T, leader string, cmds ...cluster.Command) *httptest.Server {
	t.Helper()
	s := &cluster.State{}
	for i, c := range append([]cluster.Command{&cluster.Init{ClusterID: "c1", Version: 1}}, cmds...) {
		if r := s.Apply(uint64(i+1), cluster.Time(time.Second), c); r.Code != cluster.OK {
			t.Fatalf("%T: %s", c, r.Message)
		}
	}
	srv := httptest.NewServer(Handler(Config{
		Registry: prometheus.NewRegistry(), State: func() *cluster.State { return s },
		Leader: func() (string, string) { return leader, "" }, ServerID: "s1", Version: "v1",
		Now: func() cluster.Time { return cluster.Time(91 * time.Second) }, Logger: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	resp, err := http.Get(url) //nolint:noctx // the test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read only
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestStatusPage(t *testing.T) {
	t.Parallel()
	node := cluster.Node{ID: "n", Name: "node-1", GPUs: []cluster.GPU{
		{UUID: "g0", Type: "h100", Healthy: true}, {UUID: "g1", Type: "h100", Healthy: true}, {UUID: "g2", Type: "h100", Reason: "fell off the bus"},
	}}
	srv := serve(t, "s1", &cluster.RegisterNode{Node: node},
		&cluster.SubmitJob{RequestID: "r", User: "ann", Spec: &cluster.JobSpec{Name: "<script>alert(1)</script>", Queue: "q", GPUs: 1, Launch: cluster.LaunchPerGPU, Command: []string{"x"}}},
		&cluster.StartJob{Job: 1, Epoch: 1, Workers: []cluster.Placement{{Node: "n", GPUs: []string{"g0"}}}})
	code, page, header := get(t, srv.URL+"/")
	if code != http.StatusOK || !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Fatalf("status %d, headers %v", code, header)
	}
	for _, want := range []string{
		"<title>Gangline: 1 of 3 GPUs held</title>", "node-1", `class="g held" title="h100: job 1"`, `title="h100: fell off the bus"`, `title="h100: free"`,
		"&lt;script&gt;alert(1)&lt;/script&gt;", "ann", "Starting", "1 min", "leader s1",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "<script>") {
		t.Error("a job's name is a script on the page")
	}
}

func TestEmptyClusterSaysWhatToDo(t *testing.T) {
	t.Parallel()
	srv := serve(t, "")
	_, page, _ := get(t, srv.URL+"/")
	for _, want := range []string{"no leader is known", "gangline agent --server", "gangline submit"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if code, body, _ := get(t, srv.URL+"/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no leader") {
		t.Errorf("/healthz without a leader: %d %q", code, body)
	}
	if code, _, _ := get(t, srv.URL+"/nothing"); code != http.StatusNotFound {
		t.Errorf("/nothing: %d", code)
	}
	if code, _, _ := get(t, serve(t, "s1").URL+"/healthz"); code != http.StatusOK {
		t.Errorf("/healthz with a leader: %d", code)
	}
}

// TestPageOfQueues shows the tree of queues, shares, drains and why jobs wait.
func TestPageOfQueues(t *testing.T) {
	t.Parallel()
	node := cluster.Node{ID: "n", Name: "node-1", GPUs: []cluster.GPU{{UUID: "g0", Type: "h100", Healthy: true}, {UUID: "g1", Type: "h100", Healthy: true}}}
	policy := *cluster.DefaultPolicy()
	policy.Queues = []cluster.QueuePolicy{
		{Path: "old", Weight: 1000, Closed: true},
		{Path: "q", Weight: 1000, Quota: []cluster.TypeCount{{Type: "h100", GPUs: 4}}},
		{Path: "q/sub", Weight: 1000},
	}
	spec := func(gpus, milli int32, array cluster.ArraySpec) *cluster.JobSpec {
		return &cluster.JobSpec{Name: "job", Queue: "q/sub", GPUs: gpus, GPUMilli: milli, Array: array, Launch: cluster.LaunchPerGPU, Command: []string{"x"}}
	}
	srv := serve(t, "s1", &cluster.RegisterNode{Node: node}, &cluster.SetPolicy{Policy: &policy, Any: true},
		&cluster.SubmitJob{RequestID: "r1", User: "ann", Spec: spec(1, 250, cluster.ArraySpec{})},
		&cluster.SubmitJob{RequestID: "r2", User: "ann", Spec: spec(2, 0, cluster.ArraySpec{First: 5, Last: 6, Step: 1})},
		&cluster.StartJob{Job: 1, Epoch: 1, Workers: []cluster.Placement{{Node: "n", GPUs: []string{"g0"}}}},
		&cluster.DrainNode{Node: "n", Reason: "new fan", By: "root"})
	_, page, _ := get(t, srv.URL+"/")
	for _, want := range []string{
		"<title>Gangline: 0.25 of 2 GPUs held</title>", `class="g part" title="h100: job 1 has 0.25"`, `class="g off" title="h100: its node is drained"`,
		"<td>Draining</td>", "drained by root: new fan", "old (closed)", `style="padding-left: 1rem">q/sub</td>`, "4 h100", "2 (4 GPUs)",
		"2 jobs: waits for", "job[6]",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}

// TestPageOfStorage shows what users' checkpoints take, those who have most first.
func TestPageOfStorage(t *testing.T) {
	t.Parallel()
	all := []Usage{{User: "ann", Bytes: 3 << 30, Limit: 2 << 30, Checkpoints: 4, Measured: time.Unix(31, 0)}, {User: "<b>", Bytes: 5 << 30, Checkpoints: 6, Measured: time.Unix(90, 0)}}
	for i := range maxUsers {
		all = append(all, Usage{User: "small", Bytes: int64(i)})
	}
	v := &view{}
	v.addStorage(all, time.Unix(91, 0))
	var page strings.Builder
	if err := statusPage.Execute(&page, v); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, want := range []string{"<td>ann</td>", "3 GiB (over the limit)", "2 GiB", "1 min ago", "&lt;b&gt;", "5 GiB", "none", "and 2 users more"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Index(text, "&lt;b&gt;") > strings.Index(text, "<td>ann</td>") {
		t.Error("the one who has most is not the first")
	}
}
