package checkpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

func gatheredName(ref Ref, manifest []byte) string {
	return gatheredPrefix + ref.String() + "-" + sumOf(manifest).String()[:16]
}

// PartSource opens a file of a part, to be read from its beginning to its end.
type PartSource func(name string) (io.ReaderAt, io.Closer, error)

// DrainPart copies one node's part of a joined checkpoint into the job's directory, each chunk verified as it is read, and once more there. Files that are there already, of another
// try or of another node, are left as they are. pace, if not nil, is called before each chunk and may wait. It is safe to repeat, and to do from several places at once. Errors:
// ErrIncomplete (it is not joined), *CorruptError (of the source), *NoSpaceError, the context's, the source's, pace's, the file system's.
func (s *Store) DrainPart(ctx context.Context, ref Ref, index int, open PartSource, pace func(ctx context.Context, bytes int) error) error {
	m, manifest, parts, err := s.drainable(ctx, ref)
	if err != nil || parts.Complete {
		return err
	}
	mark := partsOf(ref) + "/" + drainedPart(index, parts.Count, manifest)
	if done, err := s.exists(mark); err != nil || done {
		return err
	}
	p, err := s.LoadPart(ref, index, parts.Count)
	if err != nil {
		return err
	}
	err = s.drainFiles(ctx, &m, p.Files, gatheredName(ref, manifest), open, pace)
	if err == nil {
		return s.touch(mark)
	}
	if done, derr := s.exists(ref.String() + "/" + manifestName); derr == nil && done {
		return nil // others have brought and committed it meanwhile
	}
	return fmt.Errorf("drain part %d of %s: %w", index, ref, err)
}

// drainFiles brings files below to, durably.
func (s *Store) drainFiles(ctx context.Context, m *Manifest, files []FileInfo, to string, open PartSource, pace func(context.Context, int) error) error {
	if len(files) == 0 {
		return nil
	}
	dirs := map[string]bool{".": true}
	for _, f := range files {
		err := s.mkdirs(to, path.Dir(f.Name), dirs)
		if err == nil {
			err = s.drainFile(ctx, m, f, to, open, pace)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", f.Name, err)
		}
	}
	for dir := range dirs { // any order: each by itself
		if err := s.fs.SyncDir(path.Join(to, dir)); err != nil {
			return err
		}
	}
	return s.fs.SyncDir(".")
}

func (s *Store) drainable(ctx context.Context, ref Ref) (Manifest, []byte, Parts, error) {
	parts, err := s.LookAtParts(ctx, ref)
	if err != nil || parts.Complete {
		return Manifest{}, nil, parts, err
	}
	m, manifest, err := s.joined(ref)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: not all nodes have their part: %w", ref, ErrIncomplete)
	}
	return m, manifest, parts, err
}

func drainedPart(index, count int, manifest []byte) string {
	return drainedPrefix + partOf(index, count) + "." + sumOf(manifest).String()[:16]
}

// mkdirs makes a directory below to, and those above it.
func (s *Store) mkdirs(to, dir string, made map[string]bool) error {
	if made[dir] && dir != "." {
		return nil
	}
	if dir != "." {
		if err := s.mkdirs(to, path.Dir(dir), made); err != nil {
			return err
		}
	}
	made[dir] = true
	if err := s.fs.Mkdir(path.Join(to, dir)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// arriving begins the names of files that are on their way. What a try that was cut short has left of them goes when the checkpoint is settled.
const arriving = ".gangline-"

// dropArriving removes such files, and says what else is below dir.
func (s *Store) dropArriving(dir string, m *Manifest) (map[string]int64, error) {
	sizes, err := s.treeSizes(dir)
	if err != nil {
		return nil, err
	}
	for name := range sizes { // any order: each by itself
		base := path.Base(name)
		listed := slices.ContainsFunc(m.Files, func(f FileInfo) bool { return f.Name == name })
		if strings.HasPrefix(base, arriving) && strings.HasSuffix(base, tempSuffix) && !listed {
			if err := s.fs.Remove(dir + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return s.treeSizes(dir)
}

// drainFile brings one file to its place below to, whole or not at all.
func (s *Store) drainFile(ctx context.Context, m *Manifest, f FileInfo, to string, open PartSource, pace func(context.Context, int) error) error {
	name := to + "/" + f.Name
	if here, err := s.fs.Open(name); err == nil {
		size, err := here.Size()
		if err = errors.Join(err, here.Close()); err != nil || size == f.Bytes {
			return err // it came by a rename, when it was verified
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	src, closer, err := open(f.Name)
	if err != nil {
		return err
	}
	temp := path.Dir(name) + "/" + arriving + rand.Text()[:10] + tempSuffix
	err = errors.Join(s.copyPart(ctx, m.ChunkBytes, f, src, temp, pace), closer.Close())
	if err == nil {
		again := *s.withoutNear()
		again.chunkBytes = m.ChunkBytes
		read := FileInfo{Bytes: f.Bytes}
		dir, base := path.Split(temp)
		read.Name = base
		if err = again.sumFile(ctx, path.Clean(dir), &read); err == nil && !slices.Equal(read.Chunks, f.Chunks) {
			err = corrupt(temp, -1, "the checksums of the manifest", "others")
		}
	}
	if err == nil {
		err = s.fs.Rename(temp, name)
	}
	if err != nil {
		return s.discard(temp, wrapWrite(name, f.Bytes, err))
	}
	return nil
}

func (s *Store) copyPart(ctx context.Context, chunk int64, f FileInfo, src io.ReaderAt, temp string, pace func(context.Context, int) error) (err error) {
	out, err := s.fs.Create(temp, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	b := blob{name: f.Name, bytes: f.Bytes, chunkBytes: chunk, sums: f.Chunks}
	buf := AlignedBuffer(int(min(chunk, max(f.Bytes, 1))))
	for i := range b.sums {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := readSum(src, f.Name, b, i, buf)
		if err != nil {
			return err
		}
		s.progress(int64(len(data)))
		if pace != nil {
			if err := pace(ctx, len(data)); err != nil {
				return err
			}
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
	return out.Sync()
}

// WaitingParts lists the joined checkpoints of several nodes' files that are not complete, the newest first, as far as they are newer than the newest complete one.
func (s *Store) WaitingParts(ctx context.Context) ([]Ref, error) {
	refs, err := s.PartsOf(ctx)
	if err != nil || len(refs) == 0 {
		return nil, err
	}
	complete, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []Ref
	for _, ref := range refs {
		if len(complete) > 0 && ref.Compare(complete[0]) <= 0 {
			break
		}
		there, err := s.exists(partsOf(ref) + "/" + localName)
		if err != nil {
			return nil, err
		}
		if there {
			out = append(out, ref)
		}
	}
	return out, nil
}

// LoadParts gives the manifest of a joined checkpoint. Not joined: fs.ErrNotExist.
func (s *Store) LoadParts(ref Ref) (Manifest, error) {
	m, _, err := s.joined(ref)
	return m, err
}

// HoldPart notes that the agent of a node can be asked for a part at an address. Later notes of the node replace earlier ones.
func (s *Store) HoldPart(ref Ref, index, count int, node, address string) error {
	if !fs.ValidPath(node) || path.Base(node) != node || len(address) > MaxNameBytes {
		return fmt.Errorf("%w: node %q at %q", ErrInvalid, node, address)
	}
	return s.writeDurably(fmt.Sprintf("%s/%s%s-%s", partsOf(ref), heldPrefix, partOf(index, count), node), []byte(address), nil)
}

// PartHolders gives the nodes whose agents have a part, and their addresses.
func (s *Store) PartHolders(ref Ref, index, count int) (map[string]string, error) {
	names, err := s.names(partsOf(ref))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, name := range names {
		node, ok := strings.CutPrefix(name, heldPrefix+partOf(index, count)+"-")
		if !ok || strings.HasSuffix(name, tempSuffix) {
			continue
		}
		address, err := s.readSmall(partsOf(ref) + "/" + name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if len(address) > 0 && len(address) <= MaxNameBytes {
			out[node] = string(address)
		}
	}
	return out, nil
}

// SweepParts removes what is left of the parts of checkpoints that are older than one, or of epochs that are over; what waits to be settled by a start is none of these before its
// epoch begins.
func (s *Store) SweepParts(ctx context.Context, before Ref) error {
	refs, err := s.PartsOf(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, ref := range refs {
		if ref.Compare(before) < 0 {
			errs = append(errs, s.deleteTree(ctx, partsOf(ref), 0))
		}
	}
	return errors.Join(errs...)
}

// PartsCopied says of a joined checkpoint whether the loss of any one node would lose none of it, by names alone: each part is held by two nodes at least, or drained, or on the
// shared storage from the start. Parts without files are held by none, and lose nothing; they are read.
func (s *Store) PartsCopied(p Parts) (bool, error) {
	names, err := s.names(partsOf(p.Ref))
	if err != nil {
		return false, err
	}
	for i := range p.Count {
		holders, drained := 0, slices.Contains(p.Drained, i)
		for _, name := range names {
			if strings.HasPrefix(name, heldPrefix+partOf(i, p.Count)+"-") && !strings.HasSuffix(name, tempSuffix) {
				holders++
			}
		}
		if drained || holders > 1 {
			continue
		}
		if part, err := s.LoadPart(p.Ref, i, p.Count); err != nil || len(part.Files) > 0 {
			return false, err
		}
	}
	return true, nil
}

// CopyFile writes one of the part's files to a path of this machine, durably, as it is read from src, each chunk verified first. Errors: *CorruptError, the context's, src's, the file system's.
func (p *FilesPart) CopyFile(ctx context.Context, f FileInfo, src io.Reader, to string) (err error) {
	dir, base := filepath.Split(to)
	fsys, err := NewDir(dir)
	if err != nil {
		return err
	}
	s := &Store{fs: fsys, progress: func(int64) {}}
	temp := arriving + rand.Text()[:10] + tempSuffix
	if err := s.copyPart(ctx, p.ChunkBytes, f, InOrder(src), temp, nil); err != nil {
		return s.discard(temp, err)
	}
	if err := fsys.Rename(temp, base); err != nil {
		return s.discard(temp, err)
	}
	return fsys.SyncDir(".")
}
