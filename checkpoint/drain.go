package checkpoint

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// ShardState is how far a shard on a node's own disk is on its way into the job's directory.
type ShardState int

// States of a part. Zero is ShardWriting.
const (
	// ShardWriting: its rank has not finished it, or has given it up. It can not be told which while its epoch goes on.
	ShardWriting ShardState = iota
	// ShardWaiting: it is to be drained.
	ShardWaiting
	// ShardDrained: its bytes are in the job's directory; other ranks' are not all there yet.
	ShardDrained
	// ShardComplete: its checkpoint is complete in the job's directory; what is here is a copy.
	ShardComplete
	// ShardOver: its step was not completed before a newer epoch began, or was removed: nobody needs it.
	ShardOver
)

// LocalShard is one rank's shard of a step of which the bytes are, or were, on a node's own disk.
type LocalShard struct {
	Ref   Ref
	State ShardState
	Info  ShardInfo // unset with ShardWriting and ShardOver
	side  sidecar
}

// File gives the part's name below the job's directory, the same on every disk.
func (p *LocalShard) File() string { return p.Ref.String() + "/" + p.Info.File }

// digest tells this content of the shard from that of another try.
func digestOf(info *ShardInfo) string {
	raw, err := json.Marshal(info)
	if err != nil {
		panic(fmt.Sprintf("encode what was decoded: %v", err)) // it holds nothing that has no JSON
	}
	return sumOf(raw).String()
}

func drainedName(info *ShardInfo) string { return info.File + drainedMark + digestOf(info) }

// LocalShard says how far a shard is, of which the file on the node's own disk is named as in the job's directory. Errors: ErrInvalid for
// another name, *CorruptError, the file system's.
func (s *Store) LocalShard(ctx context.Context, ref Ref, file string) (LocalShard, error) {
	all, err := s.LocalShards(ctx, ref, []string{file})
	if err != nil {
		return LocalShard{Ref: ref}, err
	}
	return all[0], nil
}

// LocalShards does so for several shards of a step, with one listing of its directory.
func (s *Store) LocalShards(ctx context.Context, ref Ref, files []string) ([]LocalShard, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sizes, err := s.sizes(ref.String())
	if err != nil {
		return nil, err
	}
	gone := false
	if len(sizes) == 0 {
		_, err := s.fs.ReadDir(ref.String())
		gone = errors.Is(err, fs.ErrNotExist)
	}
	out := make([]LocalShard, 0, len(files))
	for _, file := range files {
		p, err := s.localShard(ref, file, sizes)
		if err != nil {
			return nil, err
		}
		if gone {
			p.State = ShardOver
		}
		out = append(out, p)
	}
	return out, nil
}

func (s *Store) localShard(ref Ref, file string, sizes map[string]int64) (LocalShard, error) {
	p := LocalShard{Ref: ref}
	var rank, world int
	if n, err := fmt.Sscanf(file, "shard-%d-of-%d.glck", &rank, &world); n != 2 || err != nil || file != shardName(rank, world) {
		return p, fmt.Errorf("%w: %q is no shard", ErrInvalid, file)
	}
	side := sidecarName(rank, world)
	if _, there := sizes[side]; !there {
		return p, nil
	}
	name := ref.String() + "/" + side
	data, err := s.readSmall(name)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil // written anew, or gone with its directory: the next look tells
	}
	if err != nil {
		return p, err
	}
	if p.side, err = parseSidecar(data); err != nil {
		return p, corrupt(name, -1, "a shard's sidecar", err.Error())
	}
	p.Info = p.side.Shard
	_, complete := sizes[manifestName]
	inPlace, isThere := sizes[file]
	drained, isDrained := sizes[drainedName(&p.Info)]
	switch {
	case complete:
		p.State = ShardComplete
	case isThere && inPlace == p.Info.Bytes, isDrained && drained == p.Info.Bytes:
		p.State = ShardDrained
	default:
		p.State = ShardWaiting
	}
	return p, nil
}

// Drain copies a part into the job's directory, each chunk verified as it is read from src, a file as the rank has written it. pace, if
// not nil, is called before each chunk and may wait. It is safe to repeat, and to do from several places at once. Errors:
// *CorruptError (of src), *NoSpaceError, ErrIncomplete (the step's directory has gone meanwhile), the context's, pace's, the file system's.
func (s *Store) Drain(ctx context.Context, p LocalShard, src io.ReaderAt, pace func(ctx context.Context, bytes int) error) error {
	dir := p.Ref.String()
	to := dir + "/" + drainedName(&p.Info)
	temp := to + "." + rand.Text()[:10] + tempSuffix
	err := s.drain(ctx, p, src, temp, pace)
	if err == nil {
		err = s.fs.Rename(temp, to)
	}
	if err != nil {
		err = s.discard(temp, wrapWrite(p.File(), p.Info.Bytes, err))
	} else {
		err = s.fs.SyncDir(dir)
	}
	if err != nil {
		if _, lerr := s.fs.ReadDir(dir); errors.Is(lerr, fs.ErrNotExist) {
			err = errors.Join(ErrIncomplete, err)
		}
		return fmt.Errorf("drain %s: %w", p.File(), err)
	}
	return nil
}

func (s *Store) drain(ctx context.Context, p LocalShard, src io.ReaderAt, temp string, pace func(context.Context, int) error) (err error) {
	f, err := s.fs.Create(temp, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	err = p.chunks(ctx, src, func(data []byte) error {
		s.progress(int64(len(data)))
		if pace != nil {
			if err := pace(ctx, len(data)); err != nil {
				return err
			}
		}
		_, err := f.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return f.Sync()
}

// chunks gives the shard's verified chunks.
func (p *LocalShard) chunks(ctx context.Context, src io.ReaderAt, each func(data []byte) error) error {
	chunk := p.side.ChunkBytes
	b := blob{name: p.Info.File, bytes: p.Info.Bytes, chunkBytes: chunk, sums: p.Info.Chunks}
	buf := AlignedBuffer(int(min(chunk, b.bytes)))
	for i := range b.sums {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := readSum(src, p.File(), b, i, buf)
		if err != nil {
			return err
		}
		if err := each(data); err != nil {
			return err
		}
	}
	return nil
}

// Copy writes the shard to dst as it is read from src, each chunk verified before it is written. Errors as of Store.Drain.
func (p *LocalShard) Copy(ctx context.Context, dst io.Writer, src io.Reader) error {
	return p.chunks(ctx, &inOrder{src: src}, func(data []byte) error {
		_, err := dst.Write(data)
		return err
	})
}

// InOrder lets a stream be read where a file is asked for, from its beginning to its end.
func InOrder(src io.Reader) io.ReaderAt { return &inOrder{src: src} }

type inOrder struct {
	src io.Reader
	at  int64
}

// ReadAt reads what comes next.
func (r *inOrder) ReadAt(p []byte, at int64) (int, error) {
	if at != r.at {
		return 0, fmt.Errorf("%w: a stream is read from its beginning, not at %d", ErrInvalid, at)
	}
	n, err := io.ReadFull(r.src, p)
	r.at += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// Undrained lists the steps that are complete on nodes' own disks and not in the job's directory, the preferred first, as far as they are
// newer than the newest complete one: what a start would rather resume from.
func (s *Store) Undrained(ctx context.Context) ([]Ref, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found, _, err := s.folders()
	if err != nil {
		return nil, err
	}
	var out []Ref
	for _, f := range found {
		if f.complete {
			break
		}
		if f.sealed {
			continue
		}
		there, err := s.exists(f.name + "/" + localName)
		if err != nil {
			return nil, err
		}
		if there {
			out = append(out, f.ref)
		}
	}
	return out, nil
}

// LoadLocal gives the manifest of a step that is complete on nodes' own disks, as Undrained lists it. Errors: as of Load.
func (s *Store) LoadLocal(ctx context.Context, ref Ref) (Manifest, error) {
	if err := ctx.Err(); err != nil {
		return Manifest{}, err
	}
	return s.local(ref.String())
}

// Settle commits a step in the job's directory if all its parts have been drained there: the rename of the manifest is the commit, as of
// Store.Commit, and what a newer epoch has fenced off stays so. Otherwise the error is ErrIncomplete, with the files that lack if
// the step is complete on nodes' own disks. It is safe to repeat, and to do from several places at once. Other errors as of Commit.
func (s *Store) Settle(ctx context.Context, ref Ref) (m Manifest, missing []string, err error) {
	dir := ref.String()
	what := fmt.Sprintf("settle %s", ref)
	if done, err := s.exists(dir + "/" + manifestName); err != nil || done {
		if err == nil {
			m, err = s.committed(dir)
		}
		return m, nil, err
	}
	m, data, err := s.localFile(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil, s.blameFence(ctx, ref.Epoch, fmt.Errorf("%s: not all ranks have saved it: %w", what, ErrIncomplete))
	}
	if err != nil {
		return m, nil, err
	}
	if missing, err = s.putInPlace(ctx, &m); err != nil {
		return m, nil, s.blameFence(ctx, ref.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	if n := len(missing); n > 0 {
		return m, missing, fmt.Errorf("%s: %d of %d shards have not come from their nodes, such as %s: %w", what, n, len(m.Shards), missing[0], ErrIncomplete)
	}
	m.Local = false
	if err := s.lookForOrigins(&m); err != nil {
		return m, nil, err
	}
	if m, err = s.finishCommit(ctx, &m, data); err != nil {
		err = s.blameFence(ctx, ref.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	return m, nil, err
}

// putInPlace gives drained shards their names, and says which are not there.
func (s *Store) putInPlace(ctx context.Context, m *Manifest) (missing []string, err error) {
	sizes, err := s.sizes(m.Dir)
	if err != nil {
		return nil, err
	}
	moved := false
	for i := range m.Shards {
		sh := &m.Shards[i]
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		drained := drainedName(sh)
		if size, ok := sizes[drained]; ok && size == sh.Bytes {
			// Also over a file that is there: only this one is known to be of this very try.
			err := s.fs.Rename(m.Dir+"/"+drained, m.Dir+"/"+sh.File)
			if err == nil {
				moved = true
				continue
			}
			there, eerr := s.exists(m.Dir + "/" + sh.File)
			if !errors.Is(err, fs.ErrNotExist) || eerr != nil || !there {
				return nil, errors.Join(err, eerr)
			}
			continue // another settler has moved it
		}
		if size, ok := sizes[sh.File]; !ok || size != sh.Bytes {
			missing = append(missing, sh.File)
		}
	}
	if moved {
		err = s.fs.SyncDir(m.Dir)
	}
	slices.Sort(missing)
	return missing, err
}

// Hold notes that the agent of a node can be asked for a part at an address, for a start on other nodes. Later notes of the node replace
// earlier ones. The notes go once the checkpoint is complete. A step whose directory has gone gives fs.ErrNotExist.
func (s *Store) Hold(ref Ref, file, node, address string) error {
	if !fs.ValidPath(node) || path.Base(node) != node || len(address) > MaxNameBytes {
		return fmt.Errorf("%w: node %q at %q", ErrInvalid, node, address)
	}
	return s.writeDurably(fmt.Sprintf("%s/%s%s-%s", ref, heldPrefix, file, node), []byte(address), nil)
}

// Holders gives the nodes whose agents have a part, and their addresses.
func (s *Store) Holders(ref Ref, file string) (map[string]string, error) {
	names, err := s.names(ref.String())
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, name := range names {
		node, ok := strings.CutPrefix(name, heldPrefix+file+"-")
		if !ok || strings.HasSuffix(name, tempSuffix) {
			continue
		}
		address, err := s.readSmall(ref.String() + "/" + name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if len(address) > 0 && len(address) <= MaxNameBytes {
			out[node] = string(address)
		}
	}
	return out, nil
}

// Copied says of a step that is complete on nodes' own disks whether the loss of any one node would lose none of it. It lists the step's
// directory once, and reads its manifest.
func (s *Store) Copied(ref Ref) (bool, error) {
	m, err := s.local(ref.String())
	if err != nil {
		return false, err
	}
	sizes, err := s.sizes(m.Dir)
	if err != nil {
		return false, err
	}
	holders := map[string]int{} // by shard
	for name := range sizes {   // any order: counts
		if shard, _, ok := strings.Cut(strings.TrimPrefix(name, heldPrefix), ".glck-"); ok && strings.HasPrefix(name, heldPrefix) && !strings.HasSuffix(name, tempSuffix) {
			holders[shard+".glck"]++
		}
	}
	for i := range m.Shards {
		sh := &m.Shards[i]
		if sizes[sh.File] != sh.Bytes && sizes[drainedName(sh)] != sh.Bytes && holders[sh.File] < 2 {
			return false, nil
		}
	}
	return true, nil
}
