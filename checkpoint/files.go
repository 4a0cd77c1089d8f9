package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Limits of checkpoints of files.
const (
	// MaxFiles is the most files of one checkpoint: frameworks write a few for each rank.
	MaxFiles = 1 << 17
	// MaxPathBytes is the longest name of a file, with its directories.
	MaxPathBytes = 1024
	// maxDepth is how deep directories may be nested.
	maxDepth = 32
)

// FileInfo describes one file of a program that has a format of its own.
type FileInfo struct {
	Name   string `json:"name"` // below the checkpoint's directory, with slashes
	Bytes  int64  `json:"bytes"`
	Chunks []Sum  `json:"xxh3_128"` // of each chunk, the last one possibly shorter; none for an empty file
}

// FilesCommit names files to commit: a directory in the job's, which whoever wrote it has left alone since.
type FilesCommit struct {
	Epoch uint64
	Step  uint64
	// From is the directory's name in the job's own. It is moved to the checkpoint's name.
	From    string
	Meta    map[string]string
	Metrics map[string]float64
	SavedAt time.Time
}

// CommitFiles makes a checkpoint of a directory that a program has written in a format of its own: it moves the directory to
// its place, makes each file durable, sums its bytes, and puts the manifest, whose rename is the commit as in Commit. Nothing may write
// there any more. What a failed or killed call left is taken up by the next call with the same step, whether From is still there
// or not. Several processes may call it for the same step at the same time: all get the one checkpoint, with the Meta, Metrics and SavedAt
// of the one that came first. Errors: ErrFenced, ErrNotBegun, ErrCommitted, ErrIncomplete (there is nothing to commit), ErrInvalid (a name, a
// link, a file that changed meanwhile), the context's, the file system's; then it has not happened, unless it is the last directory sync that failed.
func (s *Store) CommitFiles(ctx context.Context, r FilesCommit) (Manifest, error) {
	what := fmt.Sprintf("commit files of step %d", r.Step)
	if err := checkIdentity(s.job, r.Epoch, 1, s.chunkBytes); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", what, err)
	}
	if err := s.current(ctx, r.Epoch, what); err != nil {
		return Manifest{}, err
	}
	m, err := s.commitFiles(ctx, r)
	if err != nil {
		return Manifest{}, s.blameFence(ctx, r.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	return m, nil
}

// commitFiles: 1. the directory at its place, 2. its files durable and summed, 3. nothing changed meanwhile, 4. the manifest.
func (s *Store) commitFiles(ctx context.Context, r FilesCommit) (Manifest, error) {
	dir := Ref{Epoch: r.Epoch, Step: r.Step}.String()
	done, err := s.place(ctx, r.From, dir)
	if err != nil {
		return Manifest{}, err
	}
	if done {
		return s.committed(dir)
	}
	m := Manifest{
		Job: s.job, Epoch: r.Epoch, Step: r.Step, ChunkBytes: s.chunkBytes, Meta: r.Meta, Metrics: r.Metrics,
		SavedMS: millis(r.SavedAt), Shards: []ShardInfo{}, Dir: dir,
	}
	if m.Files, err = s.sumTree(ctx, dir); err != nil {
		return Manifest{}, err
	}
	data, err := s.encode(&m)
	if err != nil {
		return Manifest{}, err
	}
	after, err := s.treeSizes(dir)
	if err != nil {
		return Manifest{}, err
	}
	for _, f := range m.Files {
		if size, ok := after[f.Name]; !ok || size != f.Bytes || len(after) != len(m.Files) {
			return Manifest{}, fmt.Errorf("%w: files in %s, such as %q, changed while they were summed: commit once the program has closed them", ErrInvalid, dir, f.Name)
		}
	}
	return s.finishCommit(ctx, &m, data)
}

// sumTree makes all files below dir durable, with their names, and sums them.
func (s *Store) sumTree(ctx context.Context, dir string) ([]FileInfo, error) {
	files, dirs, err := s.tree(dir)
	if err != nil {
		return nil, err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(s.verifyWorkers)
	for i := range files {
		group.Go(func() error { return s.sumFile(gctx, dir, &files[i]) })
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return nil, err
	}
	for _, d := range dirs { // the deepest first
		if err := s.fs.SyncDir(d); err != nil {
			return nil, fmt.Errorf("make %s durable: %w", d, err)
		}
	}
	return files, nil
}

// sumFile makes one file durable and fills in its checksums. The sync comes first: on network storage it is what tells
// that the bytes have arrived, and a read after it sees them.
func (s *Store) sumFile(ctx context.Context, dir string, info *FileInfo) error {
	name := dir + "/" + info.Name
	if err := s.fs.SyncFile(name); err != nil {
		return wrapWrite(name, info.Bytes, err)
	}
	f, err := s.fs.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info.Chunks = make([]Sum, chunkCount(info.Bytes, s.chunkBytes))
	buf := AlignedBuffer(int(min(s.chunkBytes, info.Bytes)))
	for i := range info.Chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := int64(i) * s.chunkBytes
		data := buf[:min(s.chunkBytes, info.Bytes-start)]
		if n, err := f.ReadAt(data, start); n != len(data) {
			return fmt.Errorf("read %s: %d of %d bytes at %d: %w", name, n, len(data), start, err)
		}
		info.Chunks[i] = sumOf(data)
		s.progress(int64(len(data)))
	}
	return nil
}

// tree lists the files below dir by name, without our own, and the directories, the deepest first.
func (s *Store) tree(dir string) (files []FileInfo, dirs []string, err error) {
	var walk func(below string, depth int) error
	walk = func(below string, depth int) error {
		if depth > maxDepth {
			return fmt.Errorf("%w: %s is more than %d directories deep", ErrInvalid, path.Join(dir, below), maxDepth)
		}
		entries, err := s.fs.ReadDir(path.Join(dir, below))
		if err != nil {
			return fmt.Errorf("list %s: %w", path.Join(dir, below), err)
		}
		for _, e := range entries {
			name := path.Join(below, e.Name)
			switch {
			case e.IsDir:
				if err := walk(name, depth+1); err != nil {
					return err
				}
			case e.Special:
				return fmt.Errorf("%w: %s is a link or a special file: a checkpoint holds plain files: copy what it leads to", ErrInvalid, path.Join(dir, name))
			case ofManifest(name):
			default:
				files = append(files, FileInfo{Name: name, Bytes: e.Size})
			}
		}
		dirs = append(dirs, path.Join(dir, below))
		return nil
	}
	if err := walk("", 0); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(files, func(a, b FileInfo) int { return strings.Compare(a.Name, b.Name) })
	return files, dirs, nil
}

// treeSizes gives the size of each file below dir.
func (s *Store) treeSizes(dir string) (map[string]int64, error) {
	files, _, err := s.tree(dir)
	sizes := make(map[string]int64, len(files))
	for _, f := range files {
		sizes[f.Name] = f.Bytes
	}
	return sizes, err
}

// HalfFiles gives the steps of an epoch whose files have been moved to their place and are not committed: their commit was cut
// short, and CommitFiles with any From that is not there takes it up.
func (s *Store) HalfFiles(ctx context.Context, epoch uint64) ([]uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found, _, err := s.folders()
	if err != nil {
		return nil, err
	}
	var steps []uint64
	for _, f := range found {
		if f.complete || f.sealed || f.ref.Epoch != epoch {
			continue
		}
		entries, err := s.fs.ReadDir(f.name)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", f.name, err)
		}
		if slices.ContainsFunc(entries, func(e Entry) bool { return !ownName(e.Name) }) {
			steps = append(steps, f.ref.Step)
		}
	}
	return steps, nil
}

// ownName says whether a file in a checkpoint's directory is of this package's own making.
func ownName(name string) bool {
	if ofManifest(name) || ofTiers(name) {
		return true
	}
	if _, err := ParseRef(name); err == nil {
		return true // files of an earlier checkpoint
	}
	name = strings.TrimSuffix(name, tempSuffix)
	if name == damagedName || strings.HasPrefix(name, usesPrefix) {
		return true
	}
	var rank, world int
	n, err := fmt.Sscanf(name, "shard-%d-of-%d.", &rank, &world)
	return err == nil && n == 2 && (name == shardName(rank, world) || name == sidecarName(rank, world))
}

// checkFiles says what is wrong with a manifest of files.
func (m *Manifest) checkFiles() error {
	if err := checkIdentity(m.Job, m.Epoch, 1, m.ChunkBytes); err != nil {
		return err
	}
	if err := checkMeta(m.Meta); err != nil {
		return err
	}
	if len(m.Shards) > 0 || len(m.Files) == 0 || len(m.Files) > MaxFiles {
		return fmt.Errorf("%w: manifest of world size 0 lists %d shards and %d files, want none and 1 to %d", ErrInvalid, len(m.Shards), len(m.Files), MaxFiles)
	}
	for i := range m.Files {
		f := &m.Files[i]
		// The name comes from the file, so it must not lead out of the directory, nor to our own.
		if len(f.Name) > MaxPathBytes || !fs.ValidPath(f.Name) || strings.ContainsAny(f.Name, "\\\x00") || f.Name == "." || f.Name == manifestName {
			return fmt.Errorf("%w: %.80q can not be the name of a file: plain names of at most %d bytes of UTF-8 can", ErrInvalid, f.Name, MaxPathBytes)
		}
		if i > 0 && m.Files[i-1].Name >= f.Name {
			return fmt.Errorf("%w: file %q is listed twice, or out of order", ErrInvalid, f.Name)
		}
		if f.Bytes < 0 || int64(len(f.Chunks)) != chunkCount(f.Bytes, m.ChunkBytes) {
			return fmt.Errorf("%w: file %q has %d bytes and %d checksums", ErrInvalid, f.Name, f.Bytes, len(f.Chunks))
		}
	}
	return nil
}
