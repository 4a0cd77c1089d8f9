package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// loadNotes reads what a worker said before the agent was restarted. A missing file is an empty note; a broken one
// is reported and counts as empty, for a lost note must not keep a worker from being adopted.
func loadNotes(path string) (*agentv1.WorkerStatus, error) {
	notes := &agentv1.WorkerStatus{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return notes, nil
	}
	if err == nil {
		// JSON by protobuf's rules, because a loss may be NaN.
		err = (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, notes)
	}
	if err != nil {
		return &agentv1.WorkerStatus{}, fmt.Errorf("read notes %s: %w", path, err)
	}
	return notes, nil
}

// saveNotes replaces the file, so that a reader sees the old or the new content; with durable it survives a power cut.
func saveNotes(path string, notes *agentv1.WorkerStatus, durable bool) error {
	data, err := protojson.Marshal(notes)
	if err != nil {
		return fmt.Errorf("write notes %s: %w", path, err)
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write notes: %w", err)
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil && durable {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		_ = os.Remove(tmp) // on a full disk the half-written file itself takes room
		return fmt.Errorf("write notes: %w: free space on the node's state disk", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
