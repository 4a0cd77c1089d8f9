package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestBadSpecs(t *testing.T) {
	t.Parallel()
	many := make([]string, MaxArgs+1)
	cases := []struct {
		edit func(*JobSpec)
		want string
	}{
		{func(s *JobSpec) { s.Name = strings.Repeat("x", MaxNameLen+1) }, "name: must be 1 to 128 bytes"},
		{func(s *JobSpec) { s.Queue = "a//b" }, `queue: "a//b" is not a path`},
		{func(s *JobSpec) { s.Queue = strings.Repeat("a/", 20) + "a" }, "at most 128 bytes and 16 levels"},
		{func(s *JobSpec) { s.Priority = 101 }, "priority: 101 is not in 0..100"},
		{func(s *JobSpec) { s.GPUs, s.GPUsPerNode = 4, 3 }, "gpus_per_node: 3 does not divide gpus 4"},
		{func(s *JobSpec) { s.GPUTypes = make([]string, 33) }, "gpu_type: 33 types, at most 32"},
		{func(s *JobSpec) { s.Launch = 0 }, "launch: must be per-gpu or per-node"},
		{func(s *JobSpec) { s.Retries = -1 }, "retries: -1 is not in"},
		{func(s *JobSpec) { s.CPUPerGPU = -1000 }, "cpus_per_gpu: -1 is out of range"},
		{func(s *JobSpec) { s.MemPerGPU = -1 }, "memory_per_gpu: -1 bytes"},
		{func(s *JobSpec) { s.TimeLimit = -1 }, "time_limit: -1ns"},
		{func(s *JobSpec) { s.Warn = 25 * time.Hour }, "warn: 25h0m0s is not in"},
		{func(s *JobSpec) { s.Grace = -1 }, "grace: -1ns is not in"},
		{func(s *JobSpec) { s.KeepCkpts = -1 }, "checkpoint.keep: -1 is negative"},
		{func(s *JobSpec) { s.Command = many }, "command: 4097 arguments"},
		{func(s *JobSpec) { s.Command = []string{"a\x00b"} }, "command: an argument holds a NUL byte"},
		{func(s *JobSpec) { s.Env = make([]EnvVar, MaxEnv+1) }, "env: 1025 variables"},
		{func(s *JobSpec) { s.Env = []EnvVar{{"A=B", "c"}} }, `env: "A=B" is not a usable variable`},
		{func(s *JobSpec) { s.Dir = new(strings.Repeat("d", MaxSpecBytes)) }, "put large scripts in a file on shared storage"},
		{func(s *JobSpec) { s.Topology = TopologyWish{Required: true} }, `topology: level "" is not a name`},
		{func(s *JobSpec) { s.Topology.Level = "a\n" }, `topology: level "a\n" is not a name`},
		{func(s *JobSpec) { s.Selector = []Label{{"", "x"}} }, `node_selector: ""="x"`},
		{func(s *JobSpec) { s.Selector = make([]Label, 33) }, "node_selector: 33 labels, at most 32"},
		{func(s *JobSpec) { s.Tolerations = []string{"=x"} }, `tolerations: ""="x"`},
		{func(s *JobSpec) { s.Tolerations = make([]string, 33) }, "tolerations: 33, at most 32"},
	}
	for _, c := range cases {
		s := spec(1)
		c.edit(s)
		if got := fmt.Sprint(s.Validate()); !strings.Contains(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	s := &JobSpec{Name: "j", GPUs: 1, Command: []string{"x"}}
	if s.Normalize(); s.Queue != DefaultQueue || s.Launch != LaunchPerGPU || s.Validate() != nil {
		t.Errorf("defaults: %+v, %v", s, s.Validate())
	}
}

func TestWants(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]JobSpec{
		"1 GPU":                               {GPUs: 1},
		"0.25 of a GPU of type a or b":        {GPUs: 1, GPUMilli: 250, GPUTypes: []string{"a", "b"}},
		"2 to 8 GPUs of one type":             {GPUs: 8, MinGPUs: 2},
		"8 GPUs of type a, 4 on each node":    {GPUs: 8, GPUsPerNode: 4, GPUTypes: []string{"a"}},
		"8 GPUs of one type, within one rack": {GPUs: 8, Topology: TopologyWish{Level: "rack", Required: true}},
		"4 GPUs of one type":                  {GPUs: 4, Topology: TopologyWish{Level: "rack"}},
	} {
		if got := s.Wants(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
