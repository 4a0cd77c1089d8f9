package workerclient

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/gangline/gangline/checkpoint"
)

// Environment is the place of this process in its job, as the agent put it into the environment. Outside Gangline it
// is a world of one: WorldSize 1, Rank 0, JobID 0 and no Socket.
type Environment struct {
	// JobID and Epoch name the job and its launch; 0 outside Gangline.
	JobID, Epoch uint64
	// JobName is the job's name.
	JobName string
	// Rank is this worker's number in the gang, 0..WorldSize-1; LocalRank its number on its node.
	Rank, LocalRank int
	// WorldSize is the number of workers in the gang, at least 1.
	WorldSize int
	// NodeRank is the node's number in the gang, 0..NumNodes-1.
	NodeRank, NumNodes int
	// GPUs are the UUIDs of this worker's GPUs.
	GPUs []string
	// CheckpointDir is the job's folder on the shared storage; "" outside Gangline.
	CheckpointDir string
	// ResumeFrom is the checkpoint that the scheduler knows as the newest; "" for none. What lies in CheckpointDir may
	// be newer: a commit whose report was lost.
	ResumeFrom string
	// CheckpointKeep is how many checkpoints to keep; 0: the program's default.
	CheckpointKeep int
	// CheckpointInterval is when the job is to save, as its file says: auto, a time such as 10m0s, or a number of steps such as 500 steps; "": as the
	// program does. Client.SaveDue goes by it.
	CheckpointInterval string
	// CheckpointEvery keeps each checkpoint whose step is a multiple of it, beside the newest CheckpointKeep; 0: none for that.
	CheckpointEvery uint64
	// CheckpointBest keeps the best by these.
	CheckpointBest []checkpoint.Best
	// SnapshotDir is this worker's directory in shared memory, where package checkpoint/async puts copies that the agent
	// can finish saving; "": there is none.
	SnapshotDir string
	// Shrinks says that the gang goes on when a worker fails: the others meet anew (Client.MeetIn), and another may join.
	Shrinks bool
	// CheckpointLocal is the job's directory on the node's own disk, where shards are written first; "": there is none. See Local.
	CheckpointLocal string
	// CheckpointFiles is where the job writes files in a format of its own before it commits them: on the node's own disk, or CheckpointDir; "" outside Gangline.
	CheckpointFiles string
	// LocalWorldSize is the number of workers on this node.
	LocalWorldSize int
	// Socket is the agent socket's path; "" outside Gangline.
	Socket string
	// ArrayIndex is the index in a job array, or -1; ArrayJobID the array's first job, or 0.
	ArrayIndex int
	ArrayJobID uint64
	// GPUShare is what this worker may use of its one GPU, above 0 and at most 1; 1 for whole GPUs, of any number.
	GPUShare float64
}

// FromEnv reads this process's environment. It fails if a number is broken, or if the program was started as one of
// several ranks without an agent socket, since such ranks could not find each other.
func FromEnv() (Environment, error) { return fromEnv(os.Getenv) }

func fromEnv(get func(string) string) (Environment, error) {
	r := reader{get: get}
	env := Environment{
		JobID:          r.number("GANGLINE_JOB_ID", 0),
		JobName:        get("GANGLINE_JOB_NAME"),
		Epoch:          r.number("GANGLINE_EPOCH", 0),
		NodeRank:       r.integer("GANGLINE_NODE_RANK", 0),
		NumNodes:       r.integer("GANGLINE_NUM_NODES", 1),
		CheckpointDir:  get("GANGLINE_CHECKPOINT_DIR"),
		ResumeFrom:     get("GANGLINE_RESUME_FROM"),
		CheckpointKeep: r.integer("GANGLINE_CHECKPOINT_KEEP", 0),

		CheckpointInterval: get("GANGLINE_CHECKPOINT_INTERVAL"),
		CheckpointEvery:    r.number("GANGLINE_CHECKPOINT_EVERY", 0),
		CheckpointBest:     r.best("GANGLINE_CHECKPOINT_BEST"),
		SnapshotDir:        get("GANGLINE_SNAPSHOT_DIR"),
		CheckpointLocal:    get("GANGLINE_CHECKPOINT_LOCAL_DIR"),
		CheckpointFiles:    get("GANGLINE_CHECKPOINT_FILES_DIR"),
		LocalWorldSize:     r.integer("LOCAL_WORLD_SIZE", 1),
		Socket:             get("GANGLINE_AGENT_SOCKET"),
		Shrinks:            get("GANGLINE_ON_FAILURE") == "shrink",
		ArrayIndex:         r.integer("GANGLINE_ARRAY_INDEX", -1),
		ArrayJobID:         r.number("GANGLINE_ARRAY_JOB_ID", 0),
		GPUShare:           r.share("GANGLINE_GPU_SHARE"),
	}
	if uuids := get("GANGLINE_GPU_UUIDS"); uuids != "" {
		env.GPUs = strings.Split(uuids, ",")
	}
	// A launcher of launch mode per-node has no RANK of its own: it is the one worker of its node.
	env.Rank = r.integer("RANK", env.NodeRank)
	env.WorldSize = r.integer("WORLD_SIZE", env.NumNodes)
	env.LocalRank = r.integer("LOCAL_RANK", 0)
	if err := errors.Join(r.errs...); err != nil {
		return Environment{}, fmt.Errorf("read the worker's environment: %w", err)
	}
	if env.WorldSize < 1 || env.Rank < 0 || env.Rank >= env.WorldSize {
		return Environment{}, fmt.Errorf("read the worker's environment: rank %d of %d is impossible: check RANK and WORLD_SIZE", env.Rank, env.WorldSize)
	}
	if env.Socket == "" && env.WorldSize > 1 {
		return Environment{}, fmt.Errorf("read the worker's environment: WORLD_SIZE is %d but there is no GANGLINE_AGENT_SOCKET "+
			"by which the ranks find each other: run the program with `gangline submit`, or unset RANK and WORLD_SIZE to run it alone", env.WorldSize)
	}
	return env, nil
}

// reader collects what is wrong with the numbers of an environment.
type reader struct {
	get  func(string) string
	errs []error
}

func (r *reader) number(name string, missing uint64) uint64 {
	text := r.get(name)
	if text == "" {
		return missing
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s=%q is not a number >= 0", name, text))
	}
	return n
}

// best reads a list such as loss:min,accuracy:max:2.
func (r *reader) best(name string) []checkpoint.Best {
	text := r.get(name)
	if text == "" {
		return nil
	}
	var out []checkpoint.Best
	for part := range strings.SplitSeq(text, ",") {
		b, err := checkpoint.ParseBest(part)
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		out = append(out, b)
	}
	return out
}

// share reads a part of a GPU; all of it if nothing is said.
func (r *reader) share(name string) float64 {
	text := r.get(name)
	if text == "" {
		return 1
	}
	part, err := strconv.ParseFloat(text, 64)
	if err != nil || !(part > 0 && part <= 1) {
		r.errs = append(r.errs, fmt.Errorf("%s=%q is not a number above 0 and at most 1", name, text))
		return 1
	}
	return part
}

func (r *reader) integer(name string, missing int) int {
	text := r.get(name)
	if text == "" {
		return missing
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		r.errs = append(r.errs, fmt.Errorf("%s=%q is not a number >= 0", name, text))
		return missing
	}
	return n
}
