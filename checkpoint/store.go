package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Config says where a job's checkpoints are.
type Config struct {
	// FS is the job's own directory, the same for all its ranks: NewDir(path). Required.
	FS FS
	// Job is the job's name or id, up to MaxNameBytes. A checkpoint of another job in the directory is
	// never resumed from. Required.
	Job string
	// ChunkBytes is the unit of writing and checksums; 0 means DefaultChunkBytes. A multiple of Align up to
	// MaxChunkBytes. Too small costs disk rate and manifest size, too large costs memory (a writer
	// holds three chunks, a reader four) and makes reading a small tensor slow. A reader goes by the manifest.
	ChunkBytes int
	// ReferenceShare says when a save refers to an earlier complete checkpoint for tensors that have not changed, instead of writing
	// them again: when they are at least this share of the rank's bytes. 0 means DefaultReferenceShare; below 0: never. Small
	// values keep earlier checkpoints on the storage for little gain; and what many checkpoints refer to is there once: damage
	// there is damage to all of them.
	ReferenceShare float64
	// Compress makes shards smaller at the price of processor time; see DESIGN.md for measured figures. The zero value stores them as they are.
	Compress Compression
	// Key, if not nil, encrypts the shards at rest and authenticates manifests. Names, shapes, Meta and Metrics stay readable, and a program's own files are not
	// encrypted. Whoever reads them needs the key: as Key, or among OldKeys. With a Key, what none of these has authenticated is refused.
	Key     *Key
	OldKeys []*Key
	// AcceptUnauthenticated takes manifests that no key has authenticated though there is a Key: those from before there was one.
	AcceptUnauthenticated bool
	// NotBefore has Latest refuse to give an older checkpoint, with ErrOlder: one that is known to have been committed. Who can write the directory can take
	// checkpoints away, which no key tells. The zero Ref: the newest that is there is taken.
	NotBefore Ref
	// Delta, if not 0, writes tensors of bfloat16 as differences to an earlier complete checkpoint, which stays as long: at most Delta-1
	// saves in a row, then a whole one. At least 2; needs Compress, for a difference is no shorter by itself. A save then reads the earlier
	// one, and a load reads both.
	Delta int
	// Local, if not nil, is the node's own disk, where shards are written first; see Local.
	Local *Local
	// VerifyWorkers is how many files are checked at once; 0 means 2, which fills a disk or a network link
	// while one of them waits. Each holds one chunk in memory.
	VerifyWorkers int
	// Progress, if not nil, is told of bytes as they have been read and verified, or written: for a bar. Several goroutines
	// call it at once, after each chunk.
	Progress func(bytes int64)
}

// Store writes, finds, reads and removes the checkpoints of one job. Every rank opens its own; the
// directory is all they share. A Store is safe for concurrent use. It starts no goroutine that
// outlives a call and holds no open file between calls.
type Store struct {
	fs            FS
	job           string
	chunkBytes    int64
	verifyWorkers int
	progress      func(int64)

	referenceShare float64
	recall         recall
	delta          int

	as   *Encoding // how shards are stored: Compress and Key of it; nil: as they are
	key  *Key      // to write with; nil: none
	keys []*Key    // that are given, the one to write with first
	// unauthenticated is Config.AcceptUnauthenticated.
	unauthenticated bool
	notBefore       Ref
	encoder         func() (*zstd.Encoder, error)
	decoder         func() (*zstd.Decoder, error)
	near            *near // nil: shards are written into the directory itself

	mu       sync.Mutex
	verified map[string]struct{} // directories whose bytes this Store has checked in full
}

// maxRemembered bounds Store.verified: far more than the checkpoints a job keeps.
const maxRemembered = 256

// Open gives the store of one job's checkpoints. It touches no file.
func Open(cfg Config) (*Store, error) {
	if cfg.FS == nil {
		return nil, fmt.Errorf("%w: open checkpoint store: no file system given", ErrInvalid)
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, fmt.Errorf("%w: open checkpoint store: this machine is big-endian, checkpoints are little-endian", ErrInvalid)
	}
	if cfg.ChunkBytes == 0 {
		cfg.ChunkBytes = DefaultChunkBytes
	}
	if cfg.VerifyWorkers == 0 {
		cfg.VerifyWorkers = 2
	}
	if cfg.ReferenceShare == 0 {
		cfg.ReferenceShare = DefaultReferenceShare
	}
	if cfg.Progress == nil {
		cfg.Progress = func(int64) {}
	}
	if err := checkIdentity(cfg.Job, 1, 1, int64(cfg.ChunkBytes)); err != nil {
		return nil, fmt.Errorf("open checkpoint store: %w", err)
	}
	if cfg.VerifyWorkers < 1 {
		return nil, fmt.Errorf("%w: open checkpoint store: %d verify workers, want at least 1", ErrInvalid, cfg.VerifyWorkers)
	}
	s := &Store{
		fs: cfg.FS, job: cfg.Job, chunkBytes: int64(cfg.ChunkBytes), verifyWorkers: cfg.VerifyWorkers,
		progress: cfg.Progress, referenceShare: cfg.ReferenceShare, verified: map[string]struct{}{},
		delta: cfg.Delta, encoder: sync.OnceValues(newEncoder), decoder: sync.OnceValues(newDecoder),
	}
	if err := s.setEncoding(cfg); err != nil {
		return nil, err
	}
	s.near = newNear(s, cfg.Local)
	return s, nil
}

// setEncoding takes in how shards are to be stored.
func (s *Store) setEncoding(cfg Config) error {
	switch {
	case cfg.Compress != NoCompression && cfg.Compress != Zstd:
		return fmt.Errorf("%w: open checkpoint store: compression %q, want %q or none", ErrInvalid, cfg.Compress, Zstd)
	case cfg.Delta != 0 && (cfg.Delta < 2 || cfg.Compress == NoCompression):
		return fmt.Errorf("%w: open checkpoint store: differences for %d saves and compression %q: want 2 or more, and compression", ErrInvalid, cfg.Delta, cfg.Compress)
	}
	if cfg.Compress != NoCompression || cfg.Key != nil {
		s.as = &Encoding{Compress: cfg.Compress}
	}
	s.unauthenticated, s.notBefore = cfg.AcceptUnauthenticated, cfg.NotBefore
	if cfg.Key != nil {
		s.key, s.as.Key = cfg.Key, cfg.Key.id
		s.keys = append(s.keys, cfg.Key)
	}
	s.keys = append(s.keys, cfg.OldKeys...)
	return nil
}

// Job gives the name by which the checkpoints know their job.
func (s *Store) Job() string { return s.job }

// wasVerified says whether this Store has checked a directory in full.
func (s *Store) wasVerified(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.verified[dir]
	return ok
}

// setVerified remembers a check, or forgets it.
func (s *Store) setVerified(dir string, good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !good {
		delete(s.verified, dir)
		return
	}
	if len(s.verified) >= maxRemembered {
		clear(s.verified)
	}
	s.verified[dir] = struct{}{}
}

// writeDurably replaces a small file in one step: temporary name, fsync, rename. The caller syncs the
// directory. On error nothing is left behind. between, if not nil, runs just before the rename and can stop it.
func (s *Store) writeDurably(name string, data []byte, between func() error) error {
	temp := name + tempSuffix
	err := s.writeTemp(temp, data)
	if err != nil {
		err = wrapWrite(name, int64(len(data)), err)
	}
	if err == nil && between != nil {
		err = between()
	}
	if err == nil {
		if err = s.fs.Rename(temp, name); err == nil {
			return nil
		}
		err = fmt.Errorf("write %s: %w", name, err)
	}
	return s.discard(temp, err)
}

func (s *Store) writeTemp(temp string, data []byte) error {
	f, err := s.fs.Create(temp, false)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// discard removes a half-written file after err and gives err, with the removal's own failure if it has one.
func (s *Store) discard(name string, err error) error {
	if rm := s.fs.Remove(name); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		return fmt.Errorf("%w (and the half-written %s stays: %w)", err, name, rm)
	}
	return err
}

// readSmall reads a JSON file of bounded size.
func (s *Store) readSmall(name string) ([]byte, error) {
	f, err := s.fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > MaxManifestBytes {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed", name, size, MaxManifestBytes)
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); int64(n) != size {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}
