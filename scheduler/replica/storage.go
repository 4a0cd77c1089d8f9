package replica

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// Storage is where a replica keeps its log, its vote and its snapshots.
type Storage struct {
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
}

// MemoryStorage returns storage that lasts as long as the process: for tests
// and simulations.
func MemoryStorage() Storage {
	store := raft.NewInmemStore()
	return Storage{Logs: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore()}
}

const (
	clusterIDFile = "cluster-id"
	lockFile      = "lock"
	walDir        = "wal"
	dirMode       = 0o700 // jobs' environments are in there
	fileMode      = 0o600
)

// directory is a locked data directory with its stores open.
type directory struct {
	path      string
	lock      *os.File
	wal       *wal.WAL
	snapshots raft.SnapshotStore
	clusterID string // from the file, or ""
}

func openDirectory(cfg *Config) (*directory, error) {
	d := &directory{path: cfg.Dir}
	if err := d.open(cfg); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *directory) open(cfg *Config) (err error) {
	if cfg.Dir == "" {
		return errors.New("data directory: none is set")
	}
	if err := os.MkdirAll(filepath.Join(d.path, walDir), dirMode); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := d.acquire(); err != nil {
		return err
	}
	if d.clusterID, err = readClusterID(d.path); err != nil {
		return err
	}
	if d.wal, err = openWAL(filepath.Join(d.path, walDir), cfg); err != nil {
		return err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(d.path, snapshotsKept, newRaftLogger(cfg.Logger, "snapshots"))
	if err != nil {
		return fmt.Errorf("open snapshots in %s: %w", d.path, err)
	}
	d.snapshots = newestOnly{files}
	return nil
}

func openWAL(dir string, cfg *Config) (*wal.WAL, error) {
	logger := wal.WithLogger(newRaftLogger(cfg.Logger, "wal"))
	size := wal.WithSegmentSize(cfg.segmentBytes) // 0 is the library's default
	w, err := wal.Open(dir, logger, size)
	if err != nil {
		return nil, fmt.Errorf("open log in %s: %w: if the disk is full, make room; if files are damaged, move the directory away and let the server rejoin empty while the others are healthy", dir, err)
	}
	return w, nil
}

// acquire makes sure that no other process uses the directory. The kernel
// drops the lock with the process, however it ends.
func (d *directory) acquire() error {
	path := filepath.Join(d.path, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		owner, _ := io.ReadAll(io.LimitReader(f, 64)) // only for the message
		return errors.Join(fmt.Errorf("data directory %s is in use by another server (process %s): stop it, or give this one its own directory", d.path, strings.TrimSpace(string(owner))), f.Close())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("lock data directory %s: %w", d.path, err), f.Close())
	}
	d.lock = f
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("lock data directory %s: %w", d.path, err)
	}
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		return fmt.Errorf("lock data directory %s: %w", d.path, err)
	}
	return nil
}

// close closes what is open, once. The lock goes last.
func (d *directory) close() error {
	var errs []error
	if d.wal != nil {
		errs = append(errs, d.wal.Close())
	}
	if d.lock != nil {
		// Released by name: a child that this process is just forking has a copy
		// of the descriptor, and would hold the lock until it executes.
		errs = append(errs, syscall.Flock(int(d.lock.Fd()), syscall.LOCK_UN), d.lock.Close())
	}
	d.wal, d.lock = nil, nil // a start that fails late closes twice
	return errors.Join(errs...)
}

// readClusterID returns the id in the directory, or "".
func readClusterID(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, clusterIDFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the cluster's id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if id == "" || len(id) > maxHandshakeText {
		return "", fmt.Errorf("%s is damaged: restore it from another server of the same cluster", filepath.Join(dir, clusterIDFile))
	}
	return id, nil
}

// writeClusterID stores the id so that it is whole and on disk, or not there.
func writeClusterID(dir, id string) error {
	final := filepath.Join(dir, clusterIDFile)
	f, err := os.OpenFile(final+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return fmt.Errorf("store the cluster's id: %w", err)
	}
	_, err = f.WriteString(id + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("store the cluster's id: %w", err)
	}
	if err := os.Rename(final+".tmp", final); err != nil {
		return fmt.Errorf("store the cluster's id: %w", err)
	}
	parent, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("store the cluster's id: %w", err)
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// newestOnly shows only the newest snapshot. Raft would fall back to an older
// one, and panic where the log no longer reaches back to it.
type newestOnly struct{ raft.SnapshotStore }

// List returns at most one snapshot.
func (s newestOnly) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	if err != nil || len(all) < 2 {
		return all, err
	}
	return all[:1], nil
}

// checkStorage refuses a log that does not reach back to the newest snapshot:
// Raft panics when it meets the gap.
func checkStorage(s Storage) error {
	first, err := s.Logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	snaps, err := s.Snapshots.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	covered := uint64(0)
	if len(snaps) > 0 {
		covered = snaps[0].Index
	}
	if first > covered+1 {
		return fmt.Errorf("the log begins at entry %d but the newest usable snapshot ends at %d: a snapshot is missing or damaged: move the data directory away and let this server rejoin empty while the others are healthy", first, covered)
	}
	return nil
}
