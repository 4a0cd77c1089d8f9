package nodeagent

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gangline/gangline/nodeagent/reconcile"
)

// identityFile holds who this node is.
const identityFile = "agent.json"

// WrongClusterError says that a scheduler belongs to another cluster than this node. Nothing on the node was changed.
type WrongClusterError struct {
	// Server is the scheduler's address.
	Server string
	// Detail says which clusters met.
	Detail string
	// StateDir is where the node's membership is kept.
	StateDir string
}

// Error explains what an admin can do.
func (e *WrongClusterError) Error() string {
	return fmt.Sprintf("join cluster: scheduler %s: %s: correct the list of servers, or, to move the node to that cluster, "+
		"end its workers and remove its state directory %s", e.Server, e.Detail, e.StateDir)
}

// identity is who this node is, on disk. All methods may be called concurrently.
type identity struct {
	path string

	mu     sync.Mutex
	record identityRecord
	fence  *fenceFile
}

// identityRecord is the content of agent.json.
type identityRecord struct {
	// NodeID is made once, at the first start on this state directory.
	NodeID string `json:"node_id"`
	// ClusterID is that of the first Welcome; "" before.
	ClusterID string `json:"cluster_id,omitempty"`
	// Incarnation grows by one with each start.
	Incarnation uint64 `json:"incarnation"`
}

// openIdentity reads who the node is, or makes it up, and counts this start durably. The caller holds the lock of the
// state directory.
func openIdentity(stateDir string) (*identity, error) {
	id := &identity{path: filepath.Join(stateDir, identityFile)}
	data, err := os.ReadFile(id.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		id.record.NodeID = strings.ToLower(rand.Text())
	case err != nil:
		return nil, fmt.Errorf("read the node's identity: %w", err)
	default:
		if err := json.Unmarshal(data, &id.record); err != nil || id.record.NodeID == "" {
			return nil, fmt.Errorf("read the node's identity %s: it is damaged (%v): "+
				"restore the file, or remove the state directory to join as a new node", id.path, err)
		}
	}
	id.record.Incarnation++
	if err := id.save(); err != nil {
		return nil, err
	}
	if id.fence, err = openFence(filepath.Join(stateDir, fenceName)); err != nil {
		return nil, err
	}
	return id, nil
}

func (id *identity) close() error { return id.fence.close() }

// get returns the record as it is now.
func (id *identity) get() identityRecord {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.record
}

// join keeps the cluster's id at the first Welcome, and checks it at every later one.
func (id *identity) join(server, cluster string) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.record.ClusterID == cluster {
		return nil
	}
	if id.record.ClusterID != "" || cluster == "" {
		return &WrongClusterError{
			Server: server, StateDir: filepath.Dir(id.path),
			Detail: fmt.Sprintf("it serves cluster %q, and this node belongs to cluster %q", cluster, id.record.ClusterID),
		}
	}
	id.record.ClusterID = cluster
	if err := id.save(); err != nil {
		id.record.ClusterID = ""
		return err
	}
	return nil
}

// highest returns the highest fence obeyed.
func (id *identity) highest() reconcile.Fence {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.fence.highest
}

// obey makes a fence durable before its order is obeyed; an error for one that is older.
func (id *identity) obey(f reconcile.Fence) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if err := id.fence.highest.Admits(f); err != nil {
		return err
	}
	return id.fence.raise(f)
}

// save replaces agent.json durably. The caller holds mu or is alone.
func (id *identity) save() error {
	data, err := json.MarshalIndent(id.record, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(id.path, append(data, '\n')); err != nil {
		return fmt.Errorf("write the node's identity: %w", err)
	}
	return nil
}

// replaceFile writes by rename, so that a reader sees the old or the new content; it returns when a power cut cannot
// take it back.
func replaceFile(path string, data []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp) // on a full disk the half-written file itself takes room
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
