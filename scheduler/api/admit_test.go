package api

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

func TestConflict(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(h *agentv1.Hello)
		age  time.Duration
		code codes.Code
	}{
		"the same agent again":        {func(*agentv1.Hello) {}, time.Second, codes.OK},
		"restarted on the same boot":  {func(h *agentv1.Hello) { h.Incarnation = 6 }, time.Second, codes.OK},
		"an older one":                {func(h *agentv1.Hello) { h.Incarnation = 4 }, time.Second, codes.AlreadyExists},
		"a copy on another machine":   {func(h *agentv1.Hello) { h.Host = "other" }, time.Second, codes.AlreadyExists},
		"rebooted within the lease":   {func(h *agentv1.Hello) { h.BootId, h.Incarnation = "other", 6 }, time.Second, codes.AlreadyExists},
		"rebooted, the old one quiet": {func(h *agentv1.Hello) { h.BootId, h.Incarnation = "other", 6 }, 7 * time.Second, codes.OK},
		"another node with this name": {func(h *agentv1.Hello) { h.NodeId = "b" }, time.Second, codes.AlreadyExists},
	} {
		old, h := hello("a", 1), hello("a", 1)
		old.Incarnation, h.Incarnation = 5, 5
		c.edit(h)
		err := conflict(rival{hello: old, heartbeat: c.age}, h, 6*time.Second)
		if c.code == codes.OK {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		t.Run(name, func(t *testing.T) { wantStatus(t, err, c.code, "two agents with one name", "agent-a") })
	}
}

func TestCheckHello(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(h *agentv1.Hello)
		code codes.Code
		want []string
	}{
		"fine":            {func(h *agentv1.Hello) { h.ClusterId = "c1" }, codes.OK, nil},
		"new":             {func(*agentv1.Hello) {}, codes.OK, nil},
		"another cluster": {func(h *agentv1.Hello) { h.ClusterId = "c9" }, codes.FailedPrecondition, []string{"c9", "c1", "state directory"}},
		"no id":           {func(h *agentv1.Hello) { h.NodeId = "" }, codes.InvalidArgument, []string{"node_id"}},
		"escape in name":  {func(h *agentv1.Hello) { h.Name = "a\x1b[2J" }, codes.InvalidArgument, []string{"control character"}},
		"escape in type":  {func(h *agentv1.Hello) { h.Gpus[0].Type = "h100\u009b" }, codes.InvalidArgument, []string{"control character"}},
		"escape in label": {func(h *agentv1.Hello) { h.Labels = map[string]string{"rack": "1\n"} }, codes.InvalidArgument, []string{"control character"}},
		"escape in taint": {func(h *agentv1.Hello) { h.Taints = map[string]string{"a\x07": ""} }, codes.InvalidArgument, []string{"taint", "control character"}},
		"label of no key": {func(h *agentv1.Hello) { h.Labels = map[string]string{"": "1"} }, codes.InvalidArgument, []string{"no key"}},
		"long taint":      {func(h *agentv1.Hello) { h.Taints = map[string]string{"a": strings.Repeat("b", 256)} }, codes.InvalidArgument, []string{"longer than"}},
		"odd island":      {func(h *agentv1.Hello) { h.Gpus[0].Island = -1 }, codes.InvalidArgument, []string{"island -1"}},
		"long name":       {func(h *agentv1.Hello) { h.Name = strings.Repeat("n", 200) }, codes.InvalidArgument, []string{"name"}},
		"many workers": {func(h *agentv1.Hello) {
			h.Workers = make([]*agentv1.WorkerStatus, maxWorkersReported+1)
		}, codes.ResourceExhausted, []string{"workers"}},
	} {
		h := hello("a", 1)
		c.edit(h)
		err := checkHello(h, "c1")
		t.Run(name, func(t *testing.T) { wantStatus(t, err, c.code, c.want...) })
	}
}

func TestNodeOf(t *testing.T) {
	t.Parallel()
	h := hello("a", 2)
	h.Gpus[1].Island = 1
	h.Labels = map[string]string{"zone": "z", "topology.gangline.dev/rack": "r1"}
	h.Taints = map[string]string{"team": "vision", "broken": ""}
	n := nodeOf(h)
	if n.GPUs[0].Island != 0 || n.GPUs[1].Island != 1 {
		t.Errorf("islands of %+v, want 0 and 1", n.GPUs)
	}
	if diff := cmp.Diff([]cluster.Label{{Key: "topology.gangline.dev/rack", Value: "r1"}, {Key: "zone", Value: "z"}}, n.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]cluster.Taint{{Key: "broken"}, {Key: "team", Value: "vision"}}, n.Taints); diff != "" {
		t.Errorf("taints (-want +got):\n%s", diff)
	}
}

// TestLateRegistration: a registration that committed after its proposer had
// given up waiting makes the agent's stream tell of its workers again at once.
func TestLateRegistration(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 1)
	h := NewHub(HubConfig{Replica: &replica{model: m, id: "s1"}, ServerID: "s1", Logger: quiet()})
	a := &agent{hub: h, hello: hello("a", 1), unsure: true}
	if err := a.register(); err != nil || a.unsure || !a.dirty {
		t.Errorf("unsure %v, dirty %v, %v", a.unsure, a.dirty, err)
	}
	a.dirty = false
	if err := a.register(); err != nil || a.dirty {
		t.Errorf("a node that is known for sure: dirty %v, %v", a.dirty, err)
	}
}
