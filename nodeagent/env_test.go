package nodeagent

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

func testAssignment() *agentv1.Assignment {
	return &agentv1.Assignment{
		JobId: 42, Epoch: 3, JobName: "digits", WorldSize: 4, NodeRank: 1, MasterPort: 29501, Restarts: 2, MaxRestarts: 5,
		ResumeFrom: "/ck/job-42/step-7", CheckpointKeep: 3,
		Nodes: []*agentv1.GangNode{{Host: "n0", Gpus: 2, Workers: 2}, {Host: "n1", Gpus: 2, Workers: 2}},
		Workers: []*agentv1.AssignedWorker{
			{Rank: 3, LocalRank: 1, GpuUuids: []string{"GPU-b"}}, {Rank: 2, LocalRank: 0, GpuUuids: []string{"GPU-a"}},
		},
	}
}

func envOf(t *testing.T, a *agentv1.Assignment, w int) map[string]string {
	t.Helper()
	entries, err := workerEnv(a, a.GetWorkers()[w], launchPlace{
		Agent: []string{"PATH=/bin", "HOME=/root", "SECRET=x", "LANG=C"}, CheckpointRoot: "/ck", Socket: "/s", Hostfile: "/h",
	})
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, e := range entries {
		name, value, _ := strings.Cut(e, "=")
		if _, twice := env[name]; twice {
			t.Errorf("%s is set twice", name)
		}
		env[name] = value
	}
	return env
}

// common is what both modes see.
func common() map[string]string {
	return map[string]string{
		"PATH": "/bin", "HOME": "/root", "LANG": "C", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
		"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
		"GANGLINE_JOB_ID": "42", "GANGLINE_JOB_NAME": "digits", "GANGLINE_EPOCH": "3", "GANGLINE_NODE_RANK": "1",
		"GANGLINE_NUM_NODES": "2", "GANGLINE_GPU_UUIDS": "GPU-b", "GANGLINE_HOSTFILE": "/h",
		"GANGLINE_CHECKPOINT_DIR": "/ck/job-42", "GANGLINE_RESUME_FROM": "/ck/job-42/step-7", "GANGLINE_CHECKPOINT_KEEP": "3",
		"GANGLINE_AGENT_SOCKET": "/s",
	}
}

func TestEnvironmentPerGPU(t *testing.T) {
	t.Parallel()
	want := common()
	maps.Copy(want, map[string]string{
		"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2",
		"ROLE_RANK": "3", "ROLE_WORLD_SIZE": "4", "ROLE_NAME": "default", "MASTER_ADDR": "n0", "MASTER_PORT": "29501",
		"TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_MAX_RESTARTS": "5", "TORCHELASTIC_RUN_ID": "gangline-42-3",
		"TORCHELASTIC_USE_AGENT_STORE": "False", "OMP_NUM_THREADS": "1",
	})
	if d := cmp.Diff(want, envOf(t, testAssignment(), 0)); d != "" {
		t.Error(d)
	}
	for _, name := range rankNames {
		if _, ok := want[name]; !ok {
			t.Errorf("%s belongs to the contract and is not set", name)
		}
	}
}

func TestEnvironmentPerNode(t *testing.T) {
	t.Parallel()
	a := testAssignment()
	a.PerNode, a.WorldSize = true, 2
	a.Workers = []*agentv1.AssignedWorker{{Rank: 1, GpuUuids: []string{"GPU-a", "GPU-b"}}}
	a.Env = map[string]string{"RANK": "0", "WORLD_SIZE": "9"} // must not reach the launcher
	want := common()
	want["GANGLINE_GPU_UUIDS"] = "GPU-a,GPU-b"
	maps.Copy(want, map[string]string{
		"PET_NNODES": "2", "PET_NPROC_PER_NODE": "2", "PET_NODE_RANK": "1", "PET_RDZV_BACKEND": "static",
		"PET_RDZV_ENDPOINT": "n0:29501", "PET_RDZV_ID": "gangline-42-3", "PET_MAX_RESTARTS": "0", "PET_MASTER_ADDR": "n0",
		"PET_MASTER_PORT": "29501",
	})
	if d := cmp.Diff(want, envOf(t, a, 0)); d != "" {
		t.Error(d)
	}
}

func TestUserEnvironment(t *testing.T) {
	t.Parallel()
	a := testAssignment()
	a.Env = map[string]string{
		"OMP_NUM_THREADS": "8", "PATH": "/opt/bin", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "MINE": "a=b\nc", // theirs
		"RANK": "0", "CUDA_VISIBLE_DEVICES": "7", "GANGLINE_EPOCH": "1", "GANGLINE_FUTURE": "x", // ours
		"GANGLINE_ARRAY_INDEX": "5", // the scheduler's, for tasks of an array
	}
	env := envOf(t, a, 1)
	for name, want := range map[string]string{
		"OMP_NUM_THREADS": "8", "PATH": "/opt/bin", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "MINE": "a=b\nc",
		"RANK": "2", "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "GANGLINE_EPOCH": "3", "GANGLINE_ARRAY_INDEX": "5",
	} {
		if env[name] != want {
			t.Errorf("%s=%q, want %q", name, env[name], want)
		}
	}
	if _, ok := env["GANGLINE_FUTURE"]; ok {
		t.Error("a user can set names of the contract")
	}
}

func TestEnvironmentOfOne(t *testing.T) {
	t.Parallel()
	a := &agentv1.Assignment{
		JobId: 1, Epoch: 1, WorldSize: 1, Nodes: []*agentv1.GangNode{{Host: "n0", Workers: 1}}, Workers: []*agentv1.AssignedWorker{{}},
	}
	env := envOf(t, a, 0)
	if _, ok := env["OMP_NUM_THREADS"]; ok {
		t.Error("a lone worker should have all threads")
	}
	if v, ok := env["CUDA_VISIBLE_DEVICES"]; !ok || v != "" {
		t.Errorf("a worker without GPUs sees CUDA_VISIBLE_DEVICES=%q, %v", v, ok)
	}
	if _, ok := env["GANGLINE_ARRAY_INDEX"]; ok {
		t.Error("no array, yet an index")
	}
	if got := hostfile(a); got != "n0 slots=1\n" {
		t.Errorf("host file %q", got)
	}
	a.NodeRank = 1
	if _, err := workerEnv(a, a.GetWorkers()[0], launchPlace{}); err == nil {
		t.Error("node 1 of 1 was accepted")
	}
}

func TestVisibleGPUs(t *testing.T) {
	t.Parallel()
	a := testAssignment()
	a.Workers = a.Workers[:1] // rank 2 has ended before rank 3 could start
	if env := envOf(t, a, 0); env["LOCAL_WORLD_SIZE"] != "2" || env["CUDA_VISIBLE_DEVICES"] != "GPU-b" {
		t.Errorf("LOCAL_WORLD_SIZE=%s CUDA_VISIBLE_DEVICES=%s", env["LOCAL_WORLD_SIZE"], env["CUDA_VISIBLE_DEVICES"])
	}
	a = testAssignment()
	a.Workers[0].GpuUuids = []string{"GPU-b", "GPU-c"} // not one for each rank: LOCAL_RANK picks nothing
	if got := visibleGPUs(a, a.GetWorkers()[0]); !slices.Equal(got, []string{"GPU-b", "GPU-c"}) {
		t.Errorf("got %v", got)
	}
}
