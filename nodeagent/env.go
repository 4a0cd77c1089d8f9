package nodeagent

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/reconcile"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// inherited are the variables of the agent's own environment that a worker gets, unless the user sets them: enough for
// a program to find its tools, its home and its language, and no secret of the agent's.
//
//nolint:gochecknoglobals // table, never written
var inherited = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
}

// defaultPath is the PATH of a worker if neither the user nor the agent has one.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// launchPlace is what a worker's environment needs to know of its node.
type launchPlace struct {
	// Agent is the agent's own environment as "NAME=value".
	Agent []string
	// CheckpointRoot is the shared folder.
	CheckpointRoot string
	// Socket is the worker's agent socket, Hostfile its host file.
	Socket, Hostfile string
	// Images is the worker's directory in shared memory; "": there is none.
	Images string
	// Local is the job's directory on the node's own disk; "": it saves on the shared storage.
	Local string
	// Files is where it saves files of its own; "": in its folder on the shared storage.
	Files string
	// ResumeFrom is the verified checkpoint that the agent found; "": what the scheduler knows of holds.
	ResumeFrom string
	// MasterPort is the worker's MASTER_PORT.
	MasterPort int32
}

// usersNames are the variables of GANGLINE_ that are the job's own to set: how its checkpoints are stored.
//
//nolint:gochecknoglobals // table, never written
var usersNames = []string{
	checkpoint.EnvCompress, checkpoint.EnvKey, checkpoint.EnvOldKeys, checkpoint.EnvUnauthenticated, checkpoint.EnvDelta, checkpoint.EnvReferences,
	checkpoint.EnvOlder, envLocal,
}

// envLocal says what of a job's checkpoints goes to nodes' own disks first: all, tensors, or none. The job file's checkpoint.local sets it. Without it: tensors, and of gangs on one node files.
const (
	envLocal     = "GANGLINE_CHECKPOINT_LOCAL"
	localAll     = "all"
	localTensors = "tensors"
	localNone    = "none"
)

// workerEnv returns the whole environment of one worker of a, sorted. Who wins, from weak to strong: the agent's own
// few variables, our defaults, the user's, and the contract (ranks, GPUs and all of GANGLINE_* but usersNames), which no user may bend
// since ranks of one gang would no longer agree.
func workerEnv(a *agentv1.Assignment, w *agentv1.AssignedWorker, place launchPlace) ([]string, error) {
	if err := checkAssignment(a); err != nil {
		return nil, err
	}
	env := map[string]string{"PATH": defaultPath}
	for _, entry := range place.Agent {
		if name, value, ok := strings.Cut(entry, "="); ok && slices.Contains(inherited, name) {
			env[name] = value
		}
	}
	env["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "1"
	if a.GetWorldSize() > 1 && !a.GetPerNode() {
		// As torchrun does: many ranks on a node with a thread for each core each would only fight.
		env["OMP_NUM_THREADS"] = "1"
	}
	for name, value := range a.GetEnv() {
		if !strings.HasPrefix(name, "GANGLINE_") || slices.Contains(usersNames, name) {
			env[name] = value
		}
	}
	for _, name := range rankNames {
		delete(env, name) // a stray RANK in the user's environment must not reach a launcher
	}
	maps.Copy(env, ganglineEnv(a, w, place))
	if a.GetPerNode() {
		maps.Copy(env, launcherEnv(a, place.MasterPort))
	} else {
		maps.Copy(env, rankEnv(a, w, place.MasterPort))
	}
	out := make([]string, 0, len(env))
	for name, value := range env {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out, nil
}

// checkAssignment refuses what no environment can be made of.
func checkAssignment(a *agentv1.Assignment) error {
	switch {
	case a.GetWorldSize() < 1 || len(a.GetNodes()) == 0:
		return fmt.Errorf("job %d: its assignment names no gang: scheduler and agent may be of releases that do not fit", a.GetJobId())
	case a.GetNodeRank() < 0 || int(a.GetNodeRank()) >= len(a.GetNodes()):
		return fmt.Errorf("job %d: its assignment gives this node number %d of %d", a.GetJobId(), a.GetNodeRank(), len(a.GetNodes()))
	}
	return nil
}

// rankNames are the variables by which a process knows its place; a launcher of mode per-node sets them itself.
//
//nolint:gochecknoglobals // table, never written
var rankNames = []string{
	"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE",
	"ROLE_NAME", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS",
	"TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE",
}

// ganglineEnv is what every worker sees in either mode.
func ganglineEnv(a *agentv1.Assignment, w *agentv1.AssignedWorker, place launchPlace) map[string]string {
	env := map[string]string{
		"CUDA_VISIBLE_DEVICES":    strings.Join(visibleGPUs(a, w), ","),
		"CUDA_DEVICE_ORDER":       "PCI_BUS_ID",
		"GANGLINE_JOB_ID":         strconv.FormatUint(a.GetJobId(), 10),
		"GANGLINE_JOB_NAME":       a.GetJobName(),
		"GANGLINE_EPOCH":          strconv.FormatUint(a.GetEpoch(), 10),
		"GANGLINE_NODE_RANK":      number(a.GetNodeRank()),
		"GANGLINE_NUM_NODES":      strconv.Itoa(len(a.GetNodes())),
		"GANGLINE_GPU_UUIDS":      strings.Join(w.GetGpuUuids(), ","),
		"GANGLINE_HOSTFILE":       place.Hostfile,
		"GANGLINE_CHECKPOINT_DIR": checkpointDir(place.CheckpointRoot, a.GetJobId()),
		"GANGLINE_RESUME_FROM":    cmp.Or(place.ResumeFrom, a.GetResumeFrom()),
		"GANGLINE_AGENT_SOCKET":   place.Socket,
		"GANGLINE_SNAPSHOT_DIR":   place.Images,
	}
	env["GANGLINE_CHECKPOINT_FILES_DIR"] = cmp.Or(place.Files, env["GANGLINE_CHECKPOINT_DIR"])
	if place.Local != "" {
		env["GANGLINE_CHECKPOINT_LOCAL_DIR"] = place.Local
	}
	if keep := a.GetCheckpointKeep(); keep > 0 {
		env["GANGLINE_CHECKPOINT_KEEP"] = number(keep)
	}
	maps.Copy(env, savingEnv(a.GetCheckpoints()))
	if a.GetShrinks() {
		env["GANGLINE_ON_FAILURE"] = "shrink"
	}
	if first := a.GetArrayJobId(); first != 0 {
		env["GANGLINE_ARRAY_JOB_ID"] = strconv.FormatUint(first, 10)
		env["GANGLINE_ARRAY_INDEX"] = number(a.GetArrayIndex())
	}
	if milli := reconcile.Share(int(w.GetGpuMilli())); milli < reconcile.WholeGPU {
		env["GANGLINE_GPU_SHARE"] = strconv.FormatFloat(float64(milli)/reconcile.WholeGPU, 'g', -1, 64)
		env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = strconv.Itoa(max(milli*100/reconcile.WholeGPU, 1))
	}
	return env
}

// visibleGPUs are the GPUs that CUDA shows to a worker. Where each rank has one GPU, all of the gang's on this node are
// shown, in the order of local ranks: programs written for torchrun pick theirs by LOCAL_RANK, and NCCL sees its peers.
// Otherwise a worker sees its own; so it does with MIG instances, because CUDA uses only the first of those that it is
// shown, and all ranks would land on one. GANGLINE_GPU_UUIDS always names its own alone.
func visibleGPUs(a *agentv1.Assignment, w *agentv1.AssignedWorker) []string {
	local := slices.SortedFunc(slices.Values(a.GetWorkers()), func(x, y *agentv1.AssignedWorker) int {
		return int(x.GetLocalRank() - y.GetLocalRank())
	})
	var all []string
	for i, peer := range local {
		if len(peer.GetGpuUuids()) != 1 || int(peer.GetLocalRank()) != i || gpu.IsInstance(peer.GetGpuUuids()[0]) {
			return w.GetGpuUuids()
		}
		all = append(all, peer.GetGpuUuids()[0])
	}
	return all
}

// rankEnv is the torchrun contract, complete: frameworks change behaviour on a single one of these names.
func rankEnv(a *agentv1.Assignment, w *agentv1.AssignedWorker, port int32) map[string]string {
	world := number(a.GetWorldSize())
	return map[string]string{
		"RANK":                         number(w.GetRank()),
		"LOCAL_RANK":                   number(w.GetLocalRank()),
		"WORLD_SIZE":                   world,
		"LOCAL_WORLD_SIZE":             number(localWorldSize(a)),
		"GROUP_RANK":                   number(a.GetNodeRank()),
		"GROUP_WORLD_SIZE":             strconv.Itoa(len(a.GetNodes())),
		"ROLE_RANK":                    number(w.GetRank()),
		"ROLE_WORLD_SIZE":              world,
		"ROLE_NAME":                    "default",
		"MASTER_ADDR":                  a.GetNodes()[0].GetHost(),
		"MASTER_PORT":                  number(port),
		"TORCHELASTIC_RESTART_COUNT":   number(a.GetRestarts()),
		"TORCHELASTIC_MAX_RESTARTS":    number(a.GetMaxRestarts()),
		"TORCHELASTIC_RUN_ID":          runID(a),
		"TORCHELASTIC_USE_AGENT_STORE": "False",
	}
}

// localWorldSize is the number of the gang's workers on this node. The assignment itself leaves out those that have
// ended, which matters to one that had to wait for its GPU.
func localWorldSize(a *agentv1.Assignment) int32 {
	return max(a.GetNodes()[a.GetNodeRank()].GetWorkers(), int32(len(a.GetWorkers()))) //nolint:gosec // a node has few
}

// launcherEnv gives torchrun its flags, so that a bare `torchrun train.py` works. The static rendezvous keeps torchrun's
// group ranks equal to our node ranks; torchrun itself restarts nothing, because Gangline starts the gang again whole.
func launcherEnv(a *agentv1.Assignment, masterPort int32) map[string]string {
	master, port := a.GetNodes()[0].GetHost(), number(masterPort)
	return map[string]string{
		"PET_NNODES":         strconv.Itoa(len(a.GetNodes())),
		"PET_NPROC_PER_NODE": number(max(1, a.GetNodes()[a.GetNodeRank()].GetGpus())),
		"PET_NODE_RANK":      number(a.GetNodeRank()),
		"PET_RDZV_BACKEND":   "static",
		"PET_RDZV_ENDPOINT":  net.JoinHostPort(master, port),
		"PET_RDZV_ID":        runID(a),
		"PET_MAX_RESTARTS":   "0",
		"PET_MASTER_ADDR":    master,
		"PET_MASTER_PORT":    port,
	}
}

// hostfile lists the gang's nodes as mpirun and DeepSpeed read them.
func hostfile(a *agentv1.Assignment) string {
	var b strings.Builder
	for _, n := range a.GetNodes() {
		fmt.Fprintf(&b, "%s slots=%d\n", n.GetHost(), max(n.GetGpus(), n.GetWorkers()))
	}
	return b.String()
}

func checkpointDir(root string, job uint64) string {
	return filepath.Join(root, "job-"+strconv.FormatUint(job, 10))
}

func runID(a *agentv1.Assignment) string {
	return fmt.Sprintf("gangline-%d-%d", a.GetJobId(), a.GetEpoch())
}

func number(n int32) string { return strconv.FormatInt(int64(n), 10) }
