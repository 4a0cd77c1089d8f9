package fleet

import (
	"strings"
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

func TestWhy(t *testing.T) {
	t.Parallel()
	rack := cluster.TopologyWish{Level: "rack", Required: true}
	for _, c := range []struct {
		name   string
		nodes  []string
		spec   cluster.JobSpec
		holds  map[cluster.NodeID][]Hold
		text   string
		detail string
	}{
		{
			"no such type",
			[]string{"a 8"},
			cluster.JobSpec{GPUs: 1, GPUTypes: []string{"b200"}},
			nil,
			"waits for 1 GPU of type b200: no node has joined with such GPUs", "",
		},
		{"no nodes", nil, cluster.JobSpec{GPUs: 1}, nil, "waits for 1 GPU: no node has joined with such GPUs", ""},
		{
			"lost",
			[]string{"a 8", "b 8 lost"},
			cluster.JobSpec{GPUs: 16},
			nil,
			"waits for 16 GPUs of one type: the cluster has 16, but only 8 are healthy and on live nodes", " (16 h100 GPUs: 8 alive, 8 free)",
		},
		{
			"drained",
			[]string{"a 8", "b 8 drain"},
			cluster.JobSpec{GPUs: 16},
			nil,
			"waits for 16 GPUs of one type: the cluster has 16, but only 8 are on nodes that take jobs: others are drained", " (16 h100 GPUs: 16 alive, 8 free)",
		},
		{
			"busy",
			[]string{"a 2", "b 1"},
			cluster.JobSpec{GPUs: 4},
			nil,
			"waits for 4 GPUs of one type: the cluster has 16, and too few are free", " (16 h100 GPUs: 16 alive, 3 free)",
		},
		{"shape", []string{"a 3", "b 4"}, cluster.JobSpec{GPUs: 4, GPUsPerNode: 2, CPUPerGPU: 1}, nil, "", ""},
		{"broken up", []string{"a 3", "b 4"}, cluster.JobSpec{GPUs: 6, GPUsPerNode: 3}, nil, "", ""},
		{
			"too broken up",
			[]string{"a 3", "b 1"},
			cluster.JobSpec{GPUs: 4, GPUsPerNode: 2},
			nil,
			"waits for 4 GPUs of one type, 2 on each node: enough GPUs are free, but too few nodes have 2 free GPUs with the CPUs and memory for them",
			" (16 h100 GPUs: 16 alive, 4 free, 2 of them on nodes with 2 or more)",
		},
		{
			"taint",
			[]string{"a 3 taint=dev", "b 1"},
			cluster.JobSpec{GPUs: 2},
			nil,
			"waits for 2 GPUs of one type: enough GPUs are free, but too few on nodes for this job: others need a toleration of taint dev=",
			" (16 h100 GPUs: 16 alive, 4 free, 1 of them on nodes for this job)",
		},
		{
			"label",
			[]string{"a 3 zone=q", "b 7"},
			cluster.JobSpec{GPUs: 4, Selector: []cluster.Label{{Key: "zone", Value: "q"}}},
			nil,
			"waits for 4 GPUs of one type: enough GPUs are free, but too few on nodes for this job: others need label zone=q",
			" (16 h100 GPUs: 16 alive, 10 free, 3 of them on nodes for this job)",
		},
		{"CPUs", []string{"a 8 cpu=6", "b 2 cpu=2"}, cluster.JobSpec{GPUs: 8, CPUPerGPU: 1000, MemPerGPU: 1}, nil, "", ""},
		{
			"too few CPUs",
			[]string{"a 8 cpu=6", "b 2 cpu=1"},
			cluster.JobSpec{GPUs: 8, CPUPerGPU: 1000},
			nil,
			"waits for 8 GPUs of one type: enough GPUs are free, but not with the CPUs and memory for them",
			" (16 h100 GPUs: 16 alive, 10 free, 7 of them with the CPUs and memory)",
		},
		{
			"rack",
			[]string{"a 5 rack=r1", "b 5 rack=r2", "c 5"},
			cluster.JobSpec{GPUs: 6, Topology: rack},
			nil,
			"waits for 6 GPUs of one type, within one rack: enough GPUs are free, but not within one rack",
			" (24 h100 GPUs: 24 alive, 15 free, the most in one rack are 5 in r1)",
		},
		{
			"no rack",
			[]string{"a 5"},
			cluster.JobSpec{GPUs: 4, Topology: rack},
			nil,
			"waits for 4 GPUs of one type, within one rack: enough GPUs are free, but not within one rack",
			" (8 h100 GPUs: 8 alive, 5 free, none of them in a rack)",
		},
		{
			"kept for a job",
			[]string{"a 5", "b 1"},
			cluster.JobSpec{GPUs: 2},
			map[cluster.NodeID][]Hold{"a": {{Job: 12, At: 5}}},
			"waits for 2 GPUs of one type: enough GPUs are free, but they are kept free for job 12", " (16 h100 GPUs: 16 alive, 6 free, 1 of them not kept)",
		},
		{
			"kept for a queue",
			[]string{"a 5 rack=r1"},
			cluster.JobSpec{GPUs: 2, Topology: rack},
			map[cluster.NodeID][]Hold{"a": {{Queue: "research"}}},
			"waits for 2 GPUs of one type, within one rack: enough GPUs are free, but they are kept for queue research", " (8 h100 GPUs: 8 alive, 5 free, 0 of them not kept)",
		},
		{
			"maintenance",
			[]string{"a 5"},
			cluster.JobSpec{GPUs: 1, GPUMilli: 100},
			map[cluster.NodeID][]Hold{"a": {{At: 9}}},
			"waits for 0.1 of a GPU: enough GPUs are free, but they are kept for maintenance", " (8 h100 GPUs: 8 alive, 5 free, 0 of them not kept)",
		},
	} {
		f := nodes(t, c.nodes...)
		for id, holds := range c.holds {
			f.SetHolds(id, holds)
		}
		sh := f.Shape(&c.spec)
		why := f.Why(sh, sh.GPUs, &Query{Job: 3, Queue: "x"})
		text := why.Text(&c.spec)
		if c.text == "" {
			if c.text = "waits for " + c.spec.Wants() + ": it fits"; !why.Fits() {
				t.Errorf("%s: it should fit: %s", c.name, text)
			}
		}
		if text != c.text {
			t.Errorf("%s:\n got %s\nwant %s", c.name, text, c.text)
		}
		if detail := strings.TrimPrefix(why.Detail(&c.spec), text); detail != c.detail {
			t.Errorf("%s: detail\n got %q\nwant %q", c.name, detail, c.detail)
		}
		if placed := f.Place(sh, sh.GPUs, &Query{Job: 3, Queue: "x"}) != nil; placed != why.Fits() {
			t.Errorf("%s: it fits: %v, Why says otherwise", c.name, placed)
		}
	}
}
