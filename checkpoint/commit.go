package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// CommitRequest names the step to commit.
type CommitRequest struct {
	Epoch     uint64
	Step      uint64
	WorldSize int
	Meta      map[string]string // of the whole checkpoint, bounded by MaxMetaBytes
	// Metrics are finite numbers by which the best checkpoints are kept, at most MaxMetrics.
	Metrics map[string]float64
	// SavedAt is told to people; the zero time is none.
	SavedAt time.Time
}

// Commit makes a step's checkpoint visible, all of it at once. One rank calls it, after all ranks' WriteShard have returned
// without error (a barrier, such as an all-reduce of a success flag, tells it so). It reads the ranks' sidecars, so nothing else
// needs to travel. The commit is the rename of the manifest; when Commit returns without error it is durable. Repeating a
// commit gives the same manifest again, and so does another rank's at the same time. It checks names, sizes and coverage, not the shards' bytes:
// Latest and Verify read those. Errors: ErrIncomplete (with the ranks that lack), ErrFenced, ErrNotBegun, ErrInvalid, *CorruptError, *NoSpaceError, the
// context's, the file system's. After an error the commit has not happened, unless it is the last directory sync that
// failed: then it may have, and it is safe to repeat.
func (s *Store) Commit(ctx context.Context, r CommitRequest) (Manifest, error) {
	what := fmt.Sprintf("commit step %d", r.Step)
	if err := checkIdentity(s.job, r.Epoch, r.WorldSize, s.chunkBytes); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", what, err)
	}
	if err := s.current(ctx, r.Epoch, what); err != nil {
		return Manifest{}, err
	}
	m, err := s.commit(ctx, r)
	if err != nil {
		return Manifest{}, s.blameFence(ctx, r.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	return m, nil
}

func (s *Store) commit(ctx context.Context, r CommitRequest) (Manifest, error) {
	dir := Ref{Epoch: r.Epoch, Step: r.Step}.String()
	name := dir + "/" + manifestName
	done, err := s.exists(name)
	if err != nil {
		return Manifest{}, err
	}
	if done { // an earlier try came through, perhaps all but its last sync
		return s.committed(dir)
	}
	if m, err := s.local(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	m, err := s.gather(ctx, dir, r)
	if err != nil {
		return Manifest{}, err
	}
	data, err := s.encode(&m)
	if err != nil {
		return Manifest{}, err
	}
	if m.Local {
		return s.commitLocal(ctx, &m, data)
	}
	return s.finishCommit(ctx, &m, data)
}

// committed gives a checkpoint that is complete already, and makes sure that it stays so.
func (s *Store) committed(dir string) (Manifest, error) {
	m, err := s.load(dir)
	if err != nil {
		return Manifest{}, err
	}
	return m, s.fs.SyncDir(dir)
}

// finishCommit puts the manifest, whose file's bytes are data. The fence is looked at once more with everything written, immediately before the
// rename. If somebody else has committed it meanwhile, it gives that.
func (s *Store) finishCommit(ctx context.Context, m *Manifest, data []byte) (Manifest, error) {
	done, err := s.publish(m.Dir+"/"+manifestName, data, func() error { return s.current(ctx, m.Epoch, "commit") })
	if err != nil {
		return Manifest{}, err
	}
	if done {
		return s.committed(m.Dir)
	}
	if err := s.fs.SyncDir(m.Dir); err != nil {
		return Manifest{}, err
	}
	s.tidy(m)
	return *m, nil
}

// maxNamedRanks bounds how many missing ranks an error lists.
const maxNamedRanks = 8

// gather builds the manifest from the sidecars and checks that every shard file is there with its size, or on its node's own disk.
func (s *Store) gather(ctx context.Context, dir string, r CommitRequest) (Manifest, error) {
	m := Manifest{
		Job: s.job, Epoch: r.Epoch, Step: r.Step, WorldSize: r.WorldSize, ChunkBytes: s.chunkBytes, Meta: r.Meta,
		Metrics: r.Metrics, SavedMS: millis(r.SavedAt), Shards: make([]ShardInfo, 0, r.WorldSize), Dir: dir,
	}
	sizes, err := s.sizes(dir)
	if err != nil {
		return Manifest{}, err
	}
	var missing []int
	for rank := range r.WorldSize {
		if err := ctx.Err(); err != nil {
			return Manifest{}, err
		}
		side := sidecarName(rank, r.WorldSize)
		_, hasSide := sizes[side]
		size, hasShard := sizes[shardName(rank, r.WorldSize)]
		_, isLocal := sizes[localNote(rank, r.WorldSize)]
		if !hasSide || !hasShard && !isLocal {
			missing = append(missing, rank)
			continue
		}
		c, err := s.loadSidecar(dir+"/"+side, m, rank)
		if err != nil {
			return Manifest{}, err
		}
		if !hasShard {
			m.Local = true
		} else if size != c.Shard.Bytes {
			return Manifest{}, corrupt(dir+"/"+c.Shard.File, -1, fmt.Sprintf("%d bytes", c.Shard.Bytes), fmt.Sprintf("%d bytes", size))
		}
		m.Shards = append(m.Shards, c.Shard)
	}
	if n := len(missing); n > 0 {
		return Manifest{}, fmt.Errorf("%s: %d of %d shards are missing, of ranks %v: write them, then commit again: %w",
			dir, n, r.WorldSize, missing[:min(n, maxNamedRanks)], ErrIncomplete)
	}
	for _, ref := range m.Refs() {
		if _, noted := sizes[usesPrefix+ref.String()]; !noted { // nobody but a person can have taken it away
			if ok, err := s.use(dir, ref); err != nil || !ok {
				return Manifest{}, errors.Join(err, fmt.Errorf("%w: %s refers to %s, which can not be used any more: write the shards again", ErrIncomplete, dir, ref))
			}
		}
	}
	return m, s.lookForOrigins(&m)
}

// sizes lists a checkpoint's files. A missing directory has none.
func (s *Store) sizes(dir string) (map[string]int64, error) {
	entries, err := s.fs.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	sizes := make(map[string]int64, len(entries))
	for _, e := range entries {
		if !e.IsDir {
			sizes[e.Name] = e.Size
		}
	}
	return sizes, nil
}

// loadSidecar reads a rank's sidecar and checks that it belongs to the checkpoint m.
func (s *Store) loadSidecar(name string, m Manifest, rank int) (sidecar, error) {
	data, err := s.readSmall(name)
	if err != nil {
		return sidecar{}, err
	}
	c, err := parseSidecar(data)
	if err != nil {
		return sidecar{}, corrupt(name, -1, "a shard's sidecar", err.Error())
	}
	if err := s.authenticate(name, data); err != nil {
		return sidecar{}, err
	}
	want := []any{m.Job, m.Epoch, m.Step, m.WorldSize, m.ChunkBytes, rank}
	got := []any{c.Job, c.Epoch, c.Step, c.WorldSize, c.ChunkBytes, c.Shard.Rank}
	if !slices.Equal(want, got) {
		const form = "job %q epoch %d step %d of %d ranks, chunks of %d, rank %d"
		return sidecar{}, corrupt(name, -1, fmt.Sprintf(form, want...), fmt.Sprintf(form, got...))
	}
	return c, nil
}

func corrupt(path string, chunk int, want, got string) error {
	return &CorruptError{Path: path, Chunk: chunk, Want: want, Got: got}
}
