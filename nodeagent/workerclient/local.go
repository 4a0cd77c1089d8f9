package workerclient

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

const (
	// roomName is the file in which the agent says how many bytes the job may still write on the node's own disk.
	roomName = "room"
	// roomFor is how long its word holds: an agent that is away drains nothing, and the disk would fill up.
	roomFor = time.Minute
)

// Local gives the node's own disk as the first place for this rank's shards (checkpoint.Config.Local); nil where the agent has none
// for jobs. fellBack is told why a shard is written on the shared storage directly; nil: nobody is.
func (e Environment) Local(fellBack func(error)) (*checkpoint.Local, error) {
	if e.CheckpointLocal == "" {
		return nil, nil //nolint:nilnil // no disk, no first tier
	}
	dir, err := checkpoint.NewDir(e.CheckpointLocal)
	if err != nil {
		return nil, err
	}
	ranks := int64(max(e.LocalWorldSize, 1))
	local := &checkpoint.Local{
		FS: dir, FellBack: fellBack, Alone: e.NumNodes <= 1,
		Room: func(bytes int64) error { return room(e.CheckpointLocal, bytes*ranks, time.Now()) },
	}
	return local, e.whole(local)
}

// whole takes up the copy that the agent has made of the checkpoint to resume from, if ResumeFrom is one.
func (e Environment) whole(local *checkpoint.Local) error {
	parent, name := filepath.Split(e.ResumeFrom)
	ref, err := checkpoint.ParseRef(name)
	if err != nil || filepath.Clean(parent) == filepath.Clean(e.CheckpointDir) {
		return nil //nolint:nilerr // it is on the shared storage, or there is none
	}
	if _, err := os.Stat(e.ResumeFrom); err != nil {
		return nil //nolint:nilerr // it has gone since, for a newer one
	}
	whole, err := checkpoint.NewDir(filepath.Clean(parent))
	local.Whole, local.Resume, local.Epoch = whole, ref, e.Epoch
	return err
}

// room says whether so many bytes may be written. All ranks of a node save at once, each as much as the others.
func room(dir string, bytes int64, now time.Time) error {
	path := filepath.Join(dir, roomName)
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("the agent does not say how much room there is on the node's own disk: %w", err)
	}
	if age := now.Sub(info.ModTime()); age > roomFor {
		return fmt.Errorf("the agent last said %v ago how much room there is on the node's own disk", age.Truncate(time.Second))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var left struct {
		Bytes int64 `json:"bytes"`
	}
	if err := json.Unmarshal(data, &left); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if left.Bytes < bytes {
		return fmt.Errorf("the ranks of this node need %d bytes on its own disk, %d are left: give the agent a larger --checkpoint-local-size, or a faster shared storage", bytes, left.Bytes)
	}
	return nil
}
