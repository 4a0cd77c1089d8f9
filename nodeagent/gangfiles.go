package nodeagent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/drain"
	"github.com/gangline/gangline/nodeagent/keeper"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// LabelLocal is the label of a node whose agent keeps checkpoints on the node's own disk. The scheduler knows it by the same name, so that all agents of a gang hear the same of
	// each other.
	LabelLocal = "checkpoint.gangline.dev/local"
	// labelFiles keeps where the programs of a gang's node write files, for an agent that adopts a worker.
	labelFiles = "files_gang"
)

// filesPlace is where the programs of one node of a gang write files of their own.
type filesPlace struct {
	Index int    `json:"index"`
	Count int    `json:"count"`
	Dir   string `json:"dir"`
}

// labels are the node's, as the scheduler is to know them.
func (a *Agent) labels() map[string]string {
	if a.tiers.drainer == nil {
		return a.cfg.Labels
	}
	out := maps.Clone(a.cfg.Labels)
	if out == nil {
		out = map[string]string{}
	}
	out[LabelLocal] = "true"
	return out
}

// filesDir gives the directory in which a job that is about to start saves files of its own: on the node's own disk if all nodes of the gang have one for it, and the job wants that, which
// one on several nodes has to say, since some programs' ranks look for each other's files;
// else "", which means the one on the shared storage, where all ranks see each other's files.
func (a *Agent) filesDir(as *agentv1.Assignment) string {
	d := a.tiers.drainer
	if d == nil || as.GetEnv()[envLocal] == localTensors || as.GetEnv()[envLocal] == localNone {
		return ""
	}
	dir := d.FilesDir(as.GetJobId())
	err := d.FilesRoom(1)
	if err == nil {
		err = os.MkdirAll(dir, 0o750)
	}
	if len(as.GetNodes()) > 1 {
		return a.gangFilesDir(as, dir, err)
	}
	if err != nil {
		a.log.Warn("a job saves its files on the shared storage directly: the node's own disk cannot be used", "job", as.GetJobId(), "err", err)
		return ""
	}
	return dir
}

// gangFilesDir is filesDir for a gang on several nodes, whose agents all come to the same. A node whose disk cannot be used has a directory of its own on the shared storage instead; what
// earlier epochs have left uncommitted is put aside. A gang that goes on without a rank, or takes one in, would have nodes come and go, so its ranks share one directory.
func (a *Agent) gangFilesDir(as *agentv1.Assignment, dir string, unusable error) string {
	if as.GetShrinks() || as.GetEnv()[envLocal] != localAll {
		return ""
	}
	for _, n := range as.GetNodes() {
		if !n.GetLocalCheckpoints() {
			return ""
		}
	}
	got, err, _ := a.tiers.preparing.Do(fmt.Sprintf("%d-%d", as.GetJobId(), as.GetEpoch()), func() (any, error) {
		place := filesPlace{Index: int(as.GetNodeRank()), Count: len(as.GetNodes()), Dir: dir}
		if unusable != nil {
			place.Dir = a.tiers.drainer.HomeDir(as.GetJobId(), place.Index, place.Count)
			a.log.Warn("a job saves this node's files on the shared storage directly: the node's own disk cannot be used", "job", as.GetJobId(), "dir", place.Dir, "err", unusable)
		}
		if old, is := a.placeOf(as.GetJobId(), as.GetEpoch()); is {
			return old.Dir, nil // another rank of this node has been here before
		}
		moved, err := drain.MoveAside(place.Dir, as.GetEpoch())
		if err == nil {
			err = os.MkdirAll(place.Dir, 0o750)
		}
		for _, name := range moved {
			a.log.Warn("files that a program had saved were not committed in an earlier epoch: they are kept, and no checkpoint", "job", as.GetJobId(), "dir", filepath.Join(place.Dir, name))
		}
		if err == nil {
			a.setGang(as.GetJobId(), as.GetEpoch(), place)
		}
		return place.Dir, err
	})
	if err != nil {
		// All others of the gang go by the nodes' labels, so this one cannot choose otherwise: its program will say what is wrong with the place.
		a.log.Error("the directory in which a job is to save this node's files cannot be made", "job", as.GetJobId(), "err", err)
	}
	return got.(string)
}

// placeOf gives where this node's programs of a job's epoch write, if that is known: by workers of a former agent too.
func (a *Agent) placeOf(job, epoch uint64) (filesPlace, bool) {
	if place, ok := a.tiers.drainer.GangPlace(job, epoch); ok {
		return filesPlace{Dir: place}, true
	}
	for _, st := range a.workers.Workers() {
		if st.Key.Job == job && st.Key.Epoch == epoch {
			if place, ok := placeIn(st); ok {
				a.setGang(job, epoch, place)
				return place, true
			}
		}
	}
	return filesPlace{}, false
}

func placeIn(st worker.Status) (filesPlace, bool) {
	var place filesPlace
	err := json.Unmarshal([]byte(st.Labels[labelFiles]), &place)
	return place, err == nil && place.Dir != "" && place.Count > 1
}

// filesLabel is the label of a worker whose gang writes files on its nodes' own disks; "": it does not.
func (a *Agent) filesLabel(as *agentv1.Assignment, dir string) string {
	if a.tiers.drainer == nil || !a.tiers.drainer.HasGang(as.GetJobId(), as.GetEpoch()) {
		return ""
	}
	text, err := json.Marshal(filesPlace{Index: int(as.GetNodeRank()), Count: len(as.GetNodes()), Dir: dir})
	if err != nil {
		return ""
	}
	return string(text)
}

// adoptGang has the files of a worker's gang looked after that a former agent has launched.
func (a *Agent) adoptGang(st worker.Status) {
	if a.tiers.drainer != nil && !a.tiers.drainer.HasGang(st.Key.Job, st.Key.Epoch) {
		if place, ok := placeIn(st); ok {
			a.setGang(st.Key.Job, st.Key.Epoch, place)
		}
	}
}

func (a *Agent) setGang(job, epoch uint64, place filesPlace) {
	key := reconcile.Key{Job: job, Epoch: epoch}
	dir := checkpointDir(a.cfg.CheckpointRoot, job)
	a.tiers.drainer.SetGang(drain.Gang{
		Job: job, Epoch: epoch, Index: place.Index, Count: place.Count, Node: a.cfg.Name, Dir: place.Dir,
		Open:    keeper.Opener(keeper.Job{Key: key, Dir: dir, Name: filepath.Base(dir), Environ: a.environOfGang(job, epoch)}),
		Metrics: func() map[string]float64 { return keeper.Finite(a.metricsOf(key)) },
	})
}

// environOfGang gives the environment of any worker of a job's epoch on this node, also once they are gone.
func (a *Agent) environOfGang(job, epoch uint64) func() ([]string, string) {
	var mu sync.Mutex
	var env []string
	var dir string
	return func() ([]string, string) {
		for _, key := range a.keysOf(job, epoch) {
			if e, d := a.environOf(key)(); e != nil {
				mu.Lock()
				env, dir = e, d
				mu.Unlock()
				break
			}
		}
		mu.Lock()
		defer mu.Unlock()
		return env, dir
	}
}

// keysOf names the workers of a job's epoch on this node whose ends are not told.
func (a *Agent) keysOf(job, epoch uint64) []reconcile.Key {
	var out []reconcile.Key
	for _, st := range a.workers.Workers() {
		if st.Key.Job == job && st.Key.Epoch == epoch && !st.Acked {
			out = append(out, reconcile.Key(st.Key))
		}
	}
	return out
}

// admitPart asks whether a part of a checkpoint of files may be committed.
func (a *Agent) admitPart(ctx context.Context, job, epoch uint64, bytes int64) error {
	if keys := a.keysOf(job, epoch); len(keys) > 0 {
		return a.admit(ctx, keys[0], bytes)
	}
	return nil
}

// gangProblem keeps why what a gang has saved is no checkpoint.
func (a *Agent) gangProblem(job, epoch uint64, text string) {
	for _, key := range a.keysOf(job, epoch) {
		a.problem(key, text)
	}
}

// joined tells, with the worker of rank 0, of a checkpoint of several nodes' files that is complete on their own disks.
func (a *Agent) joined(job, epoch uint64, m checkpoint.Manifest) {
	for _, key := range a.keysOf(job, epoch) {
		if key.Rank != 0 {
			continue
		}
		told := &agentv1.Checkpoint{
			Step: int64(m.Step), Path: filepath.Join(checkpointDir(a.cfg.CheckpointRoot, job), m.Ref().String()), Bytes: m.Bytes(), //nolint:gosec // at most 63 bits
		}
		if at := m.Saved(); !at.IsZero() {
			told.SavedUnixMs = at.UnixMilli()
		}
		if kept := a.sockets.Local(key, told); kept != nil {
			a.reportedLocal(key, kept)
		}
	}
}
