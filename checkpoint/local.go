package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

// Local is a node's own disk as the first of two tiers: the ranks of the node write their shards there, and what is small (fence,
// sidecars, manifests) goes into the job's own directory at once. The node's agent copies the shards after them (Store.Drain), and the
// checkpoint is committed there once all have come (Store.Settle). Without an agent nobody does.
type Local struct {
	// FS is the job's directory on the node's disk, which all its ranks on this node share. Required.
	FS FS
	// Room says whether a shard of so many bytes may be written there: an error says why not. nil: as long as the disk takes it.
	Room func(bytes int64) error
	// FellBack, if not nil, is told why a shard was written into the job's directory directly. Ranks call it on their own goroutines.
	FellBack func(error)
	// Alone says that all ranks of this epoch run on this node, so that Latest may verify the copies here; otherwise it verifies
	// those which the ranks of other nodes will read.
	Alone bool
	// Whole, if not nil, is a directory of the job on the node's disk where the agent has made a whole, verified copy of the checkpoint Resume, before it
	// started this process of Epoch. See whole.go.
	Whole  FS
	Resume Ref
	Epoch  uint64
}

// near is a Local at work.
type near struct {
	*Store // of the node's disk: it writes shards there, and knows nothing of checkpoints
	local  Local
	whole  *Store // of Local.Whole; nil: there is none
}

func newNear(s *Store, l *Local) *near {
	if l == nil || l.FS == nil {
		return nil
	}
	n := &near{local: *l, Store: &Store{
		fs: l.FS, job: s.job, chunkBytes: s.chunkBytes, progress: s.progress, as: s.as, keys: s.keys, encoder: s.encoder, decoder: s.decoder,
	}}
	if l.Whole != nil {
		n.whole = &Store{fs: l.Whole, job: s.job, chunkBytes: s.chunkBytes, progress: s.progress, keys: s.keys, unauthenticated: s.unauthenticated}
	}
	if n.local.Room == nil {
		n.local.Room = func(int64) error { return nil }
	}
	if n.local.FellBack == nil {
		n.local.FellBack = func(error) {}
	}
	return n
}

func localNote(rank, worldSize int) string {
	return fmt.Sprintf("%s%04d-of-%04d", localPrefix, rank, worldSize)
}

// ofTiers says whether a file in a complete checkpoint's directory is left from its way there.
func ofTiers(name string) bool {
	var rank, world int
	if n, err := fmt.Sscanf(name, localPrefix+"%d-of-%d", &rank, &world); err == nil && n == 2 {
		return name == localNote(rank, world)
	}
	shard := strings.TrimPrefix(name, heldPrefix)
	if n, err := fmt.Sscanf(shard, "shard-%d-of-%d.", &rank, &world); err == nil && n == 2 {
		rest, ok := strings.CutPrefix(shard, shardName(rank, world))
		return ok && (shard != name && strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, drainedMark))
	}
	return name == localName || strings.HasPrefix(name, localName+".") && strings.HasSuffix(name, tempSuffix)
}

// putShard writes a rank's file on the node's own disk if there is one with room, else into the job's directory, and gives what takes it
// away again after an error. The directory that names it is not synced yet; the node's own is.
func (s *Store) putShard(ctx context.Context, w ShardWrite, info *ShardInfo, src content, sv *saving) (undo func(error) error, err error) {
	dir := Ref{Epoch: w.Epoch, Step: w.Step}.String()
	file := dir + "/" + info.File
	if s.near != nil {
		// Of an earlier try: it must not pass for what is written now.
		if err := s.fs.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		err := s.near.local.Room(info.Bytes)
		if err == nil {
			try := *info
			try.Chunks = slices.Clone(info.Chunks)
			try.Encoded = s.newEncoding(info.Encoded)
			if err = s.near.put(ctx, dir, w, &try, again(src), sv); err == nil {
				*info = try
			}
		}
		if err == nil {
			note := dir + "/" + localNote(w.Rank, w.WorldSize)
			if err := s.touch(note); err != nil {
				return nil, s.near.discard(file, s.discard(note, err))
			}
			return func(err error) error { return s.near.discard(file, s.discard(note, err)) }, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		s.near.local.FellBack(fmt.Errorf("%s is not written on the node's own disk, but into the job's directory: %w", file, err))
	}
	return func(err error) error { return s.discard(file, err) }, s.putInto(ctx, file, w, info, src, sv)
}

// put writes a shard on the node's own disk, durably.
func (n *near) put(ctx context.Context, dir string, w ShardWrite, info *ShardInfo, src content, sv *saving) error {
	if err := n.fs.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return wrapWrite(dir, 0, err)
	}
	if err := n.fs.SyncDir("."); err != nil {
		return err
	}
	file := dir + "/" + info.File
	if err := n.putInto(ctx, file, w, info, src, sv); err != nil {
		return err
	}
	if err := n.fs.SyncDir(dir); err != nil {
		return n.discard(file, err)
	}
	return nil
}

// again gives the same content for another reading.
func again(src content) content {
	if s, ok := src.(*pieceList); ok {
		c := *s
		return &c
	}
	return src
}

// commitLocal says that all shards of a step are durable, some of them on nodes' own disks. It is no commit for Latest.
func (s *Store) commitLocal(ctx context.Context, m *Manifest, data []byte) (Manifest, error) {
	_, err := s.publish(m.Dir+"/"+localName, data, func() error { return s.current(ctx, m.Epoch, "commit") })
	if err != nil {
		return Manifest{}, err
	}
	return *m, s.fs.SyncDir(m.Dir)
}

// local gives the manifest of a step of which some shards are on nodes' own disks. Not there: fs.ErrNotExist.
func (s *Store) local(dir string) (Manifest, error) {
	m, _, err := s.localFile(dir)
	return m, err
}

// localFile gives the bytes of its file too: they become the manifest's as they are, so that who settles a step needs no key.
func (s *Store) localFile(dir string) (Manifest, []byte, error) {
	name := dir + "/" + localName
	data, err := s.readSmall(name)
	if err != nil {
		return Manifest{}, nil, err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return Manifest{}, nil, corrupt(name, -1, "a manifest", err.Error())
	}
	if m.Dir = m.Ref().String(); m.Job != s.job || m.Dir != dir {
		return Manifest{}, nil, corrupt(name, -1, s.job+", "+dir, m.Job+", "+m.Dir)
	}
	if err := s.authenticate(name, data); err != nil {
		return Manifest{}, nil, err
	}
	m.Local = true
	return m, data, nil
}

// openNear opens the copy of a shard on the node's own disk, if there is one of the right size. Whatever is wrong with it, the one in the
// job's directory is read instead.
func (s *Store) openNear(m *Manifest, b *blob) (ReadFile, string, bool) {
	if s.near == nil || b.shard == nil {
		return nil, "", false
	}
	path := m.Dir + "/" + b.name
	f, err := s.near.fs.Open(m.Ref().String() + "/" + b.name)
	if err != nil {
		return nil, "", false
	}
	if size, err := f.Size(); err != nil || size != b.bytes {
		_ = f.Close()
		return nil, "", false
	}
	return &nearFile{near: f, open: func() (ReadFile, error) { return s.fs.Open(path) }}, path, true
}

// openShared opens a file as the ranks of other nodes see it.
func (s *Store) openShared(m *Manifest, b *blob) (ReadFile, string, error) {
	if s.near == nil {
		return s.open(m, b)
	}
	if s.near.local.Alone {
		if f, path, ok := s.openNear(m, b); ok {
			return f, path, nil
		}
	}
	far := *s.withoutNear()
	return far.open(m, b)
}

// withoutNear gives a store that sees the job's directory alone, for opening files.
func (s *Store) withoutNear() *Store {
	return &Store{fs: s.fs, job: s.job, chunkBytes: s.chunkBytes, progress: s.progress}
}

// nearFile reads from the node's own disk, and from the job's directory where that fails.
type nearFile struct {
	near ReadFile
	open func() (ReadFile, error)

	mu  sync.Mutex
	far ReadFile
}

// ReadAt reads from the node's own disk.
func (f *nearFile) ReadAt(p []byte, at int64) (int, error) { return f.near.ReadAt(p, at) }

// Size is of the file on the node's own disk, which is as the manifest says.
func (f *nearFile) Size() (int64, error) { return f.near.Size() }

// Close closes what was opened.
func (f *nearFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.near.Close()
	if f.far != nil {
		err = errors.Join(err, f.far.Close())
	}
	return err
}

func (f *nearFile) prefetch(at, n int64) { prefetch(f.near, at, n) }

// farther gives the file in the job's directory.
func (f *nearFile) farther() (io.ReaderAt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.far == nil {
		f.far, err = f.open()
	}
	return f.far, err
}
