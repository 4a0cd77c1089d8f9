package cluster

import (
	"strings"
	"testing"
)

func TestInstances(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	p.Weights = []TypeWeight{{"h100", 2000}, {"h100-3g.40gb", 5}}
	for gpuType, want := range map[string]struct {
		board  string
		weight int64
	}{
		"h100":              {"", 2000},
		"a100":              {"", 1000},
		"h100-1g.10gb":      {"h100", 285},
		"h100-2g.20gb":      {"h100", 571},
		"h100-7g.80gb":      {"h100", 2000},
		"h100-3g.40gb":      {"h100", 5},
		"h100-1c.3g.40gb":   {"h100", 285},
		"h100-1g.10gb.me":   {"h100", 285},
		"a30-2g.12gb":       {"a30", 500},
		"h100-large":        {"", 1000},
		"h100-1g":           {"", 1000},
		"rtx-4g.":           {"", 1000},
		"-1g.10gb":          {"", 1000},
		"h100-111111g.10gb": {"", 1000},
	} {
		board, _, ok := InstanceOf(gpuType)
		if board != want.board || ok != (board != "") {
			t.Errorf("%s: board %q, %v", gpuType, board, ok)
		}
		if w := p.WeightOf(gpuType); w != want.weight {
			t.Errorf("%s: weighs %d, want %d", gpuType, w, want.weight)
		}
	}
}

// TestInstancesAreAskedFor: nobody gets a MIG instance who does not name its type.
func TestInstancesAreAskedFor(t *testing.T) {
	t.Parallel()
	s := &State{}
	s.Apply(1, 1, &Init{ClusterID: "c", Version: Version})
	n := gpuNode(0, 3)
	for i := range n.GPUs {
		n.GPUs[i].Type = "h100-1g.10gb"
	}
	s.Apply(2, 2, &RegisterNode{Node: n})
	sp := &JobSpec{Name: "j", Queue: "q", GPUs: 1, Launch: LaunchPerGPU, Command: []string{"x"}}
	r := s.Apply(3, 3, &SubmitJob{RequestID: "a", Spec: sp})
	if want := "MIG instances go to jobs that name their type only (gpu_type: h100-1g.10gb)"; r.Code != NeverFits || !strings.Contains(r.Message, want) {
		t.Errorf("without a type: %d %s", r.Code, r.Message)
	}
	named := *sp
	named.GPUTypes = []string{"h100-1g.10gb"}
	if r := s.Apply(4, 4, &SubmitJob{RequestID: "b", Spec: &named}); r.Code != OK {
		t.Errorf("with it: %s", r.Message)
	}
	if _, err := s.checkPlacement(sp, []Placement{{Node: n.ID, GPUs: []string{"GPU-0-0"}}}); err == nil {
		t.Error("Apply starts a job on an instance that it did not ask for")
	}
}
