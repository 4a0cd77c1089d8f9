package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gangline/gangline/checkpoint/usage"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/socket"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// runDir holds a folder for each worker: its host file, its notes and its default working directory.
	runDir       = "run"
	hostfileName = "hostfile"
	notesName    = "notes.json"
	workName     = "work"

	// labelSocket keeps the path of a worker's agent socket in its spec: the worker knows it by heart, so a later
	// agent must serve that very path.
	labelSocket = "socket"
	labelJob    = "job_name"
	labelUser   = "user"
	labelQueue  = "queue"
	// labelShare and labelPort are set for a worker that shares its GPU: thousandths of it, and its MASTER_PORT. An
	// agent that adopts the worker reads them.
	labelShare = "gpu_milli"
	labelPort  = "master_port"
	// labelKeep is how many checkpoints of files the agent keeps of the job.
	labelKeep = "checkpoint_keep"

	// launchFailed is the exit code reported for a worker that could not be started: the shell's code for a command
	// that does not exist. The message tells it from a program's own 127.
	launchFailed = 127
)

// launch prepares one worker's folder and socket, then starts it with port as its MASTER_PORT. It runs in a goroutine of
// its own; ctx ends with the agent.
func (a *Agent) launch(ctx context.Context, key reconcile.Key, ordered orderedWorker, port int32) (err error) {
	defer func() {
		if err != nil {
			a.sockets.Forget(key)
			if !errors.Is(err, worker.ErrClosed) {
				err = errors.Join(err, os.RemoveAll(a.workerDir(key)))
			}
		}
	}()
	as := ordered.assignment
	dir := a.workerDir(key)
	path, err := socket.Path(a.cfg.StateDir, key)
	if err != nil {
		return err
	}
	place := launchPlace{
		Agent: os.Environ(), CheckpointRoot: a.cfg.CheckpointRoot, Socket: path, Hostfile: filepath.Join(dir, hostfileName),
		MasterPort: port, Images: a.imageDir(key), Local: a.localDir(as), Files: a.filesDir(as),
	}
	env, err := workerEnv(as, ordered.worker, place)
	if err != nil {
		return err
	}
	if place.ResumeFrom, err = a.resumeFrom(ctx, key, as, env); err != nil {
		return fmt.Errorf("launch worker %v: %w", key, err)
	}
	if env, err = workerEnv(as, ordered.worker, place); err != nil {
		return err
	}
	work := as.GetDir()
	if work == "" {
		work = filepath.Join(dir, workName)
	}
	if err := os.MkdirAll(filepath.Join(dir, workName), 0o700); err != nil {
		return fmt.Errorf("launch worker %v: %w: free space on the node's state disk", key, err)
	}
	if err := os.WriteFile(place.Hostfile, []byte(hostfile(as)), 0o600); err != nil {
		return fmt.Errorf("launch worker %v: write its host file: %w: free space on the node's state disk", key, err)
	}
	if err := os.MkdirAll(checkpointDir(a.cfg.CheckpointRoot, key.Job), 0o755); err != nil {
		return fmt.Errorf("launch worker %v: its checkpoint folder cannot be made: %w: "+
			"check that the node has mounted the shared storage and may write there", key, err)
	}
	if err := usage.Own(a.cfg.CheckpointRoot, as.GetUser(), filepath.Base(checkpointDir("", key.Job))); err != nil {
		a.log.Warn("whose checkpoints a job's are is not noted: they do not count for its user", keyArgs(key, "err", err)...)
	}
	a.sockets.Track(key, socket.Files{Socket: path, Notes: filepath.Join(dir, notesName)})
	if err := a.sockets.Serve(key); err != nil {
		return err
	}
	a.noteLost(key)
	a.sockets.SetGang(key, gangOf(as))
	a.sockets.SetPolicy(key, pacePolicy(as.GetCheckpoints()))
	labels := map[string]string{
		labelSocket: path, labelJob: as.GetJobName(), labelUser: as.GetUser(), labelQueue: as.GetQueue(),
	}
	if milli := ordered.worker.GetGpuMilli(); milli > 0 {
		labels[labelShare] = number(milli)
	}
	if as.GetMasterPort() == 0 {
		labels[labelPort] = number(port)
	}
	setSaving(labels, as)
	if text := a.filesLabel(as, place.Files); text != "" {
		labels[labelFiles] = text
	}
	return a.workers.Launch(worker.Spec{
		Key: worker.Key(key), Command: as.GetCommand(), Env: env, Dir: work, GPUs: ordered.worker.GetGpuUuids(),
		Labels: labels, MaxLogBytes: a.cfg.MaxLogBytes,
	})
}

// gangOf is what a worker is told of the others.
func gangOf(as *agentv1.Assignment) socket.Gang {
	g := socket.Gang{Formation: max(as.GetFormation(), 1), Members: as.GetMembers(), Peers: as.GetPeers(), Secret: as.GetRingSecret()}
	if len(g.Members) == 0 { // of a leader of a release that had one formation only
		for rank := range as.GetWorldSize() {
			g.Members = append(g.Members, rank)
		}
	}
	return g
}

// files says where a worker's socket and notes lie; the socket as its spec has it.
func (a *Agent) files(st worker.Status) socket.Files {
	return socket.Files{
		Socket: st.Labels[labelSocket], Notes: filepath.Join(a.workerDir(reconcile.Key(st.Key)), notesName),
	}
}

// removeOthers removes what is in a directory, but for the names to keep. A missing directory holds nothing.
func removeOthers(dir string, keep map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
