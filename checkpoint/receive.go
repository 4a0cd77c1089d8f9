package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sync/errgroup"
)

// ReceiveRequest says which checkpoint to receive, and from where.
type ReceiveRequest struct {
	// Manifest is its manifest's file as it is there. Required.
	Manifest []byte
	// Fetch fills dst with bytes of one of its files from a place on; several goroutines call it. Required.
	Fetch func(ctx context.Context, name string, at int64, dst []byte) error
	// Whole has what it needs of earlier checkpoints come along even where those are here, so that it needs no other.
	Whole bool
	// Link, if not nil, gives a file that lies on the same disk a second name, to, below the Store's directory, without copying it; false: there is none,
	// or the disk can not. Its content is verified, and fetched instead if it is not what it should be. Nobody may change it in place.
	Link func(name, to string) (bool, error)
	// Known says of a file that is in its place whether the caller knows its bytes to be right, so that they need not be read; nil: of none.
	Known func(name string) bool
	// Verified, if not nil, is told of each file that is in its place, durable and verified. Damaged is told of one that was there, and is not good.
	Verified func(name string)
	Damaged  func(name string, err error)
}

// Receive makes a complete checkpoint of one that lies elsewhere: manifest is its manifest's file as it is there, and fetch fills dst with
// bytes of one of its files from a place on; several goroutines call it. Every chunk is verified before it is written, and
// the manifest comes last, so that a Receive that was cut short leaves no checkpoint; the next one goes on with what verifies of what it left. One that is here
// already is given back untouched. A file of an earlier checkpoint that it refers to has a name as FileNames gives it: where that checkpoint is
// here, it is referred to; otherwise its file is fetched whole and lies in the one received, of which the parts that belong to it are verified. Errors: ErrInvalid (of another job), *CorruptError (what was fetched is not what the manifest says),
// fetch's, the context's, the file system's.
func (s *Store) Receive(ctx context.Context, manifest []byte, fetch func(ctx context.Context, name string, at int64, dst []byte) error) (Manifest, error) {
	return s.ReceiveFrom(ctx, ReceiveRequest{Manifest: manifest, Fetch: fetch})
}

// ReceiveFrom is Receive with more to say. One process at a time receives a checkpoint into a directory.
func (s *Store) ReceiveFrom(ctx context.Context, r ReceiveRequest) (Manifest, error) {
	m, err := ParseManifest(r.Manifest)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: receive a checkpoint: %w", ErrInvalid, err)
	}
	if err := s.authenticate("the manifest", r.Manifest); err != nil {
		return Manifest{}, fmt.Errorf("receive a checkpoint: %w", err)
	}
	if m.Job != s.job {
		return Manifest{}, fmt.Errorf("%w: receive a checkpoint of job %q into the directory of %q", ErrInvalid, m.Job, s.job)
	}
	if here, err := s.Load(ctx, m.Ref()); err == nil || !errors.Is(err, ErrNone) {
		return here, err
	}
	m.Dir = m.Ref().String()
	if err := s.receive(ctx, m, &r); err != nil {
		return Manifest{}, fmt.Errorf("receive %s: %w", m.Dir, err)
	}
	return m, nil
}

func (s *Store) receive(ctx context.Context, m Manifest, r *ReceiveRequest) error {
	parts := partNames(&m)
	if err := s.dropOthers(ctx, &m, parts); err != nil {
		return err
	}
	wanted, err := s.wanted(&m, r.Whole)
	if err != nil {
		return err
	}
	dirs, err := s.makeDirs(&m, wanted)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(s.verifyWorkers)
	for _, b := range wanted {
		group.Go(func() error {
			if err := s.receiveFile(gctx, &m, b, parts[b.name], r); err != nil {
				return wrapWrite(m.Dir+"/"+b.name, b.bytes, err)
			}
			return nil
		})
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := s.fs.SyncDir(dirs[i]); err != nil {
			return err
		}
	}
	if err := s.writeDurably(m.Dir+"/"+manifestName, r.Manifest, nil); err != nil {
		return err
	}
	if err := s.fs.SyncDir(m.Dir); err != nil {
		return err
	}
	return s.fs.SyncDir(".")
}

// wanted lists the files that have to be fetched: all but those of earlier checkpoints that are here and can be referred to.
func (s *Store) wanted(m *Manifest, whole bool) ([]blob, error) {
	if whole || len(m.Refs()) == 0 {
		return m.blobs(), nil
	}
	if err := s.fs.Mkdir(m.Dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, wrapWrite(m.Dir, 0, err)
	}
	here := map[Ref]bool{}
	for _, ref := range m.Refs() {
		ok, err := s.use(m.Dir, ref)
		if err != nil {
			return nil, err
		}
		here[ref] = ok
		if !ok { // nobody else shares this note
			if err := s.fs.Remove(m.Dir + "/" + usesPrefix + ref.String()); err != nil {
				return nil, err
			}
		}
	}
	var out []blob
	for _, b := range m.blobs() {
		if b.from != nil && here[b.from.Ref()] {
			// Of a try that found the earlier checkpoint missing.
			if err := s.fs.Remove(m.Dir + "/" + b.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			one := Manifest{Dir: m.Dir, Shards: []ShardInfo{{Origins: []Origin{*b.from}}}}
			err := s.lookForOrigins(&one)
			if err == nil {
				continue
			}
			if !damaged(err) {
				return nil, err
			}
		}
		out = append(out, b)
	}
	return out, nil
}

// makeDirs makes the checkpoint's directory and those below it that files lie in, and lists them, outer ones first.
func (s *Store) makeDirs(m *Manifest, files []blob) ([]string, error) {
	made := map[string]bool{}
	var dirs []string
	var mk func(dir string) error
	mk = func(dir string) error {
		if dir == "." || made[dir] {
			return nil
		}
		if err := mk(path.Dir(dir)); err != nil {
			return err
		}
		made[dir] = true
		dirs = append(dirs, dir)
		if err := s.fs.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return wrapWrite(dir, 0, err)
		}
		return nil
	}
	for _, b := range files {
		if err := mk(path.Dir(m.Dir + "/" + b.name)); err != nil {
			return nil, err
		}
	}
	return dirs, nil
}
