package nodeagent

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/gangline/gangline/nodeagent/worker"
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
		MasterPort: 29501, Images: "/shm/w",
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
		"GANGLINE_CHECKPOINT_DIR": "/ck/job-42", "GANGLINE_CHECKPOINT_FILES_DIR": "/ck/job-42", "GANGLINE_RESUME_FROM": "/ck/job-42/step-7", "GANGLINE_CHECKPOINT_KEEP": "3",
		"GANGLINE_AGENT_SOCKET": "/s", "GANGLINE_SNAPSHOT_DIR": "/shm/w",
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
		"GANGLINE_CHECKPOINT_COMPRESS": "zstd", "GANGLINE_CHECKPOINT_DIR": "/mine", // of one family, and yet
		"RANK": "0", "CUDA_VISIBLE_DEVICES": "7", "GANGLINE_EPOCH": "1", "GANGLINE_FUTURE": "x", // ours
		"GANGLINE_ARRAY_INDEX": "5", "GANGLINE_GPU_SHARE": "1", // the scheduler's
	}
	env := envOf(t, a, 1)
	for name, want := range map[string]string{
		"OMP_NUM_THREADS": "8", "PATH": "/opt/bin", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "MINE": "a=b\nc",
		"RANK": "2", "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "GANGLINE_EPOCH": "3",
		"GANGLINE_CHECKPOINT_COMPRESS": "zstd", "GANGLINE_CHECKPOINT_DIR": "/ck/job-42",
	} {
		if env[name] != want {
			t.Errorf("%s=%q, want %q", name, env[name], want)
		}
	}
	for _, name := range []string{"GANGLINE_FUTURE", "GANGLINE_ARRAY_INDEX", "GANGLINE_GPU_SHARE"} {
		if _, ok := env[name]; ok {
			t.Errorf("a user can set %s, a name of the contract", name)
		}
	}
}

// TestEnvironmentOfACheckpointPolicy: what the job's file says of saving, as programs read it.
func TestEnvironmentOfACheckpointPolicy(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]*agentv1.CheckpointPolicy{
		"auto": {IntervalAuto: true}, "500 steps": {IntervalSteps: 500}, "1m30s": {IntervalMs: 90_000}, "": {KeepEvery: 7},
	} {
		p.KeepBest = []*agentv1.KeepBest{{Metric: "loss", Lowest: true, Count: 1}, {Metric: "acc", Count: 2}}
		a := testAssignment()
		a.Checkpoints = p
		env := envOf(t, a, 0)
		if env["GANGLINE_CHECKPOINT_INTERVAL"] != want || env["GANGLINE_CHECKPOINT_BEST"] != "loss:min,acc:max:2" || (env["GANGLINE_CHECKPOINT_EVERY"] == "7") != (want == "") {
			t.Errorf("of %v: %v", p, env)
		}
		labels := map[string]string{}
		setSaving(labels, a)
		if keep, got := savingOf(worker.Status{Labels: labels}); keep != 3 || !proto.Equal(got, p) {
			t.Errorf("the labels of a worker keep %d, %v", keep, got)
		}
	}
}

func TestEnvironmentOfAnArrayMember(t *testing.T) {
	t.Parallel()
	a := testAssignment()
	if env := envOf(t, a, 0); env["GANGLINE_ARRAY_JOB_ID"]+env["GANGLINE_ARRAY_INDEX"] != "" {
		t.Errorf("no array, yet index %q of %q", env["GANGLINE_ARRAY_INDEX"], env["GANGLINE_ARRAY_JOB_ID"])
	}
	a.ArrayJobId, a.ArrayIndex = 42, 0
	if env := envOf(t, a, 0); env["GANGLINE_ARRAY_JOB_ID"] != "42" || env["GANGLINE_ARRAY_INDEX"] != "0" {
		t.Errorf("first member: index %q of %q", env["GANGLINE_ARRAY_INDEX"], env["GANGLINE_ARRAY_JOB_ID"])
	}
}

func TestEnvironmentOfAShare(t *testing.T) {
	t.Parallel()
	for milli, want := range map[int32][2]string{
		0: {"", ""}, 1000: {"", ""}, 500: {"0.5", "50"}, 335: {"0.335", "33"}, 999: {"0.999", "99"}, 1: {"0.001", "1"},
	} {
		a := testAssignment()
		a.Workers = []*agentv1.AssignedWorker{{GpuUuids: []string{"GPU-a"}, GpuMilli: milli}}
		env := envOf(t, a, 0)
		if got := [2]string{env["GANGLINE_GPU_SHARE"], env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"]}; got != want {
			t.Errorf("%d thousandths: share and percentage %q, want %q", milli, got, want)
		}
		if env["CUDA_VISIBLE_DEVICES"] != "GPU-a" {
			t.Errorf("%d thousandths: sees %q", milli, env["CUDA_VISIBLE_DEVICES"])
		}
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
	a = testAssignment() // CUDA would put both ranks on the first instance that it sees
	a.Workers[0].GpuUuids, a.Workers[1].GpuUuids = []string{"MIG-b"}, []string{"MIG-a"}
	if got := visibleGPUs(a, a.GetWorkers()[0]); !slices.Equal(got, []string{"MIG-b"}) {
		t.Errorf("a rank on a MIG instance sees %v, want its own alone", got)
	}
}
