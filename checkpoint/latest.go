package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Skipped is a complete checkpoint that can not be used, and why.
type Skipped struct {
	Ref Ref
	Dir string
	Err error
}

// Latest gives the newest complete checkpoint whose every byte verifies; see Ref.Compare for newest. Those that do
// not verify, or that the medium can not read, are skipped, and listed for the log; one that can not be reached is not. Call Fence before it, so that the answer can not change;
// let one rank call it and tell the others the Ref, so that all agree even while a disk fails. Where the node's agent has made a whole copy of the one to resume from
// (Local.Whole), that is given unless this epoch has saved since: the agent has verified it, and a Reader verifies what it reads. Errors: ErrNone if there is
// no complete checkpoint, ErrAllBad if there is none that verifies, ErrKey or ErrUnauthenticated of the newest that is whole, ErrOlder if it is older than Config.NotBefore, the context's, and the file system's if the directory
// or a checkpoint can not be looked at: only ErrNone means that there is nothing to resume.
func (s *Store) Latest(ctx context.Context) (Manifest, []Skipped, error) {
	found, _, err := s.folders()
	if err != nil {
		return Manifest{}, nil, err
	}
	var skipped []Skipped
	for _, f := range s.withWhole(found) {
		if f.whole {
			if m, ok := s.takeWhole(); ok {
				return m, skipped, nil
			}
			continue
		}
		if !f.complete {
			continue
		}
		m, err := s.whole(ctx, f.name)
		if err == nil && f.ref.Compare(s.notBefore) < 0 {
			return Manifest{}, skipped, s.older(f.ref.String())
		}
		if err == nil {
			s.resumeFrom(m)
			return m, skipped, nil
		}
		if ctx.Err() != nil {
			return Manifest{}, skipped, ctx.Err()
		}
		if errors.Is(err, ErrKey) || errors.Is(err, ErrUnauthenticated) { // no damage: an older one is no answer to it
			return Manifest{}, skipped, err
		}
		if !lost(err) {
			return Manifest{}, skipped, fmt.Errorf("%s can not be looked at, which does not say that it is damaged, so none older is taken: %w: check the storage and its permissions, and start again", f.name, err)
		}
		skipped = append(skipped, Skipped{Ref: f.ref, Dir: f.name, Err: err})
	}
	if len(skipped) > 0 {
		return Manifest{}, skipped, fmt.Errorf("%w: %d are there, the newest says: %w: repair the storage, or move them away to start from nothing",
			ErrAllBad, len(skipped), skipped[0].Err)
	}
	if s.notBefore != (Ref{}) {
		return Manifest{}, nil, s.older("none")
	}
	return Manifest{}, nil, ErrNone
}

func (s *Store) older(there string) error {
	return fmt.Errorf("%w: %s was committed, and the newest that is there and good is %s: bring it back, or start without %s=%s", ErrOlder, s.notBefore, there, EnvOlder, RefuseOlder)
}

// staleTries is how often a checkpoint is looked at whose files' handles have become stale: opened anew, they are those that are there now.
const staleTries = 3

// whole gives a checkpoint whose every byte verifies.
func (s *Store) whole(ctx context.Context, dir string) (m Manifest, err error) {
	for range staleTries {
		if m, err = s.load(dir); err == nil {
			err = s.Verify(ctx, m)
		}
		if !errors.Is(err, syscall.ESTALE) {
			break
		}
	}
	return m, err
}

// lost says whether err tells that a checkpoint is of no use: that its bytes are others, or another job's, that a file is missing, or that the medium can
// not read them. All else (no permission, a server that is away, too many open files) says nothing of them.
func lost(err error) bool {
	return damaged(err) || errors.Is(err, ErrInvalid) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADMSG)
}

// Load gives one complete checkpoint after checking its manifest and the files' sizes, but not their bytes: a Reader checks
// the bytes that it reads. It is for ranks that were told what to resume from. A missing one gives ErrNone, one that was not written with a key of
// a Store that has a Key ErrUnauthenticated, ErrKey (another one's), or, where it was changed, *CorruptError.
func (s *Store) Load(ctx context.Context, ref Ref) (Manifest, error) {
	if err := ctx.Err(); err != nil {
		return Manifest{}, err
	}
	if s.near != nil && ref == s.near.local.Resume {
		if m, ok := s.takeWhole(); ok {
			return m, nil
		}
	}
	for _, dir := range []string{ref.String(), ref.String() + sealedSuffix} {
		m, err := s.load(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			s.resumeFrom(m)
		}
		return m, err
	}
	return Manifest{}, fmt.Errorf("load %s: %w", ref, ErrNone)
}

// List gives every complete checkpoint, the preferred first. It reads no file: some may be damaged.
func (s *Store) List(ctx context.Context) ([]Ref, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found, _, err := s.folders()
	if err != nil {
		return nil, err
	}
	var refs []Ref
	for _, f := range found {
		if f.complete {
			refs = append(refs, f.ref)
		}
	}
	return refs, nil
}

// load reads a directory's manifest and checks it against the directory.
func (s *Store) load(dir string) (Manifest, error) {
	name := dir + "/" + manifestName
	data, err := s.readSmall(name)
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return Manifest{}, corrupt(name, -1, "a manifest", err.Error())
	}
	if err := s.authenticate(name, data); err != nil {
		return Manifest{}, err
	}
	m.Dir = dir
	if m.Job != s.job {
		return Manifest{}, fmt.Errorf("%s is a checkpoint of job %q, not of %q: give each job its own directory: %w", name, m.Job, s.job, ErrInvalid)
	}
	if base := m.Ref().String(); dir != base && dir != base+sealedSuffix && dir != base+deadSuffix {
		return Manifest{}, corrupt(name, -1, dir, base)
	}
	sizes, err := s.sizes(dir)
	if m.WorldSize == 0 && err == nil {
		sizes, err = s.treeSizes(dir)
	}
	if err != nil {
		return Manifest{}, err
	}
	for _, b := range m.blobs() {
		if b.from != nil {
			continue
		}
		if size, ok := sizes[b.name]; !ok || size != b.bytes {
			return Manifest{}, wrongSize(dir+"/"+b.name, b.bytes, size, ok)
		}
	}
	return m, s.lookForOrigins(&m)
}

// wrongSize says that a file is not there, or not as long as it should be.
func wrongSize(path string, want, got int64, isThere bool) error {
	if !isThere {
		return corrupt(path, -1, fmt.Sprintf("%d bytes", want), "no such file")
	}
	return corrupt(path, -1, fmt.Sprintf("%d bytes", want), fmt.Sprintf("%d bytes", got))
}
