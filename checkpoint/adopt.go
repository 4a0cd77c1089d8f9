package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// AdoptFiles commits a directory as the checkpoint of files that was committed elsewhere with this manifest: from lies in the job's directory, and holds copies of its
// files, unverified. They are made durable and read; then the directory moves to its place, and the manifest, byte for byte as it was, is the commit, with
// all the rules of CommitFiles. So whoever brings it needs no key. It is safe to repeat, from another copy, and to do from several places at once: the first
// one counts. Errors: *CorruptError (a copy is not what the manifest says: the directory stays where it is), ErrInvalid (no manifest of files, or of another
// job), else as of CommitFiles.
func (s *Store) AdoptFiles(ctx context.Context, manifest []byte, from string) (Manifest, error) {
	m, err := ParseManifest(manifest)
	if err != nil || m.WorldSize != 0 || m.Job != s.job {
		return Manifest{}, fmt.Errorf("adopt files in %s: %w: no manifest of files of job %q: %v", from, ErrInvalid, s.job, err) //nolint:errorlint // nil for another job
	}
	m.Dir = m.Ref().String()
	what := fmt.Sprintf("adopt files of %s", m.Dir)
	if err := s.authenticate(m.Dir+"/"+manifestName, manifest); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", what, err)
	}
	if err := s.current(ctx, m.Epoch, what); err != nil {
		return Manifest{}, err
	}
	got, err := s.adopt(ctx, &m, manifest, from)
	if err != nil {
		return Manifest{}, s.blameFence(ctx, m.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	return got, nil
}

// adopt verifies before it moves anything: what lies at a checkpoint's place without a manifest may be committed as it is by whoever finds it.
func (s *Store) adopt(ctx context.Context, m *Manifest, manifest []byte, from string) (Manifest, error) {
	if done, err := s.exists(m.Dir + "/" + manifestName); err != nil || done {
		if err == nil {
			return s.committed(m.Dir)
		}
		return Manifest{}, err
	}
	as := s.withoutNear()
	as.chunkBytes, as.verifyWorkers = m.ChunkBytes, s.verifyWorkers
	files, err := as.sumTree(ctx, from)
	if err != nil {
		return Manifest{}, err
	}
	for i := range max(len(files), len(m.Files)) {
		if i >= len(files) || i >= len(m.Files) || files[i].Name != m.Files[i].Name || files[i].Bytes != m.Files[i].Bytes {
			return Manifest{}, corrupt(from, -1, fmt.Sprintf("the %d files of the manifest", len(m.Files)), fmt.Sprintf("%d files, the first that differs is number %d", len(files), i+1))
		}
		if !slices.Equal(files[i].Chunks, m.Files[i].Chunks) {
			return Manifest{}, corrupt(from+"/"+files[i].Name, -1, "the checksums of the manifest", "others")
		}
	}
	done, err := s.place(ctx, from, m.Dir)
	if done || errors.Is(err, ErrCommitted) { // from another copy
		return s.committed(m.Dir)
	}
	if err != nil {
		return Manifest{}, err
	}
	return s.finishCommit(ctx, m, manifest)
}
