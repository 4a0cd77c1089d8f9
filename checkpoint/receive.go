package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sync/errgroup"
)

// receiveAhead is how many chunks of one file are fetched at the same time.
const receiveAhead = 4

// Receive makes a complete checkpoint of one that lies elsewhere: manifest is its manifest's file as it is there, and fetch fills dst with
// bytes of one of its files from a place on; several goroutines call it. Every chunk is verified before it is written, and
// the manifest comes last, so that a Receive that was cut short leaves no checkpoint; the next one begins it anew. One that is here
// already is given back untouched. A file of an earlier checkpoint that it refers to has a name as FileNames gives it: where that checkpoint is
// here, it is referred to; otherwise its file is fetched whole and lies in the one received, of which the parts that belong to it are verified. Errors: ErrInvalid (of another job), *CorruptError (what was fetched is not what the manifest says),
// fetch's, the context's, the file system's.
func (s *Store) Receive(ctx context.Context, manifest []byte, fetch func(ctx context.Context, name string, at int64, dst []byte) error) (Manifest, error) {
	m, err := ParseManifest(manifest)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: receive a checkpoint: %w", ErrInvalid, err)
	}
	if err := s.authenticate("the manifest", manifest); err != nil {
		return Manifest{}, fmt.Errorf("receive a checkpoint: %w", err)
	}
	if m.Job != s.job {
		return Manifest{}, fmt.Errorf("%w: receive a checkpoint of job %q into the directory of %q", ErrInvalid, m.Job, s.job)
	}
	if here, err := s.Load(ctx, m.Ref()); err == nil || !errors.Is(err, ErrNone) {
		return here, err
	}
	m.Dir = m.Ref().String()
	if err := s.receive(ctx, m, manifest, fetch); err != nil {
		return Manifest{}, fmt.Errorf("receive %s: %w", m.Dir, err)
	}
	return m, nil
}

func (s *Store) receive(ctx context.Context, m Manifest, manifest []byte, fetch func(context.Context, string, int64, []byte) error) error {
	if err := s.deleteTree(ctx, m.Dir, 0); err != nil {
		return err
	}
	wanted, err := s.wanted(&m)
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
			if err := s.receiveFile(gctx, m, b, fetch); err != nil {
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
	if err := s.writeDurably(m.Dir+"/"+manifestName, manifest, nil); err != nil {
		return err
	}
	if err := s.fs.SyncDir(m.Dir); err != nil {
		return err
	}
	return s.fs.SyncDir(".")
}

// wanted lists the files that have to be fetched: all but those of earlier checkpoints that are here and can be referred to.
func (s *Store) wanted(m *Manifest) ([]blob, error) {
	if len(m.Refs()) == 0 {
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

// received is one chunk on its way.
type received struct {
	data []byte
	err  error
}

// receiveFile fetches several chunks at once and writes them in order.
func (s *Store) receiveFile(ctx context.Context, m Manifest, b blob, fetch func(context.Context, string, int64, []byte) error) (err error) {
	bulk := b.bytes%Align == 0
	f, err := s.fs.Create(m.Dir+"/"+b.name, bulk)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	inFlight := make(chan chan received, receiveAhead)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(inFlight)
		for i := range int(chunkCount(b.bytes, b.chunkBytes)) {
			start := int64(i) * b.chunkBytes
			buf := AlignedBuffer(int(min(b.chunkBytes, b.bytes-start)))
			got := make(chan received, 1)
			select {
			case inFlight <- got: // waits while enough are under way
			case <-gctx.Done():
				return gctx.Err()
			}
			group.Go(func() error {
				err := fetch(gctx, b.name, start, buf)
				if want, ok := b.sum(i); ok && err == nil {
					if sum := sumOf(buf); sum != want {
						err = corrupt(m.Dir+"/"+b.name, i, "xxh3-128 "+want.String(), sum.String())
					}
				}
				got <- received{buf, err}
				return nil
			})
		}
		return nil
	})
	for got := range inFlight {
		if err != nil {
			continue // until all have ended
		}
		select {
		case r := <-got:
			if err = r.err; err == nil {
				_, err = f.Write(r.data)
				s.progress(int64(len(r.data)))
			}
		case <-gctx.Done():
			err = gctx.Err()
		}
		if err != nil {
			cancel()
		}
	}
	cancel()
	if waited := group.Wait(); err == nil {
		err = waited
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
