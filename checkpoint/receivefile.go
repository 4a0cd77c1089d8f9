package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// receiveAhead is how many chunks of one file are fetched at the same time.
const receiveAhead = 4

// partPrefix begins the names of files that are being received: what is under its own name is whole.
const partPrefix = ".receiving"

// appender is an FS that can go on writing a file.
type appender interface {
	// Append opens a file that is there for writing from a place on; what lies behind it is cut off. bulk is as of FS.Create.
	Append(name string, at int64, bulk bool) (WriteFile, error)
}

// partNames says under which names a checkpoint's files are received, by their own: the same at each try, and no program's file has one.
func partNames(m *Manifest) map[string]string {
	prefix := partPrefix
	for i := 0; i < len(m.Files); i++ {
		if strings.Contains(m.Files[i].Name, prefix) {
			prefix, i = prefix+".", -1
		}
	}
	out := map[string]string{}
	for i, b := range m.blobs() {
		out[b.name] = path.Join(path.Dir(b.name), fmt.Sprintf("%s-%d", prefix, i))
	}
	return out
}

// dropOthers removes from a checkpoint's directory what a try to receive it can not have left, such as files of another one of its name.
func (s *Store) dropOthers(ctx context.Context, m *Manifest, parts map[string]string) error {
	keep, dirs := map[string]bool{}, map[string]bool{}
	for name, part := range parts { // any order: sets
		keep[name], keep[part] = true, true
		for name = path.Dir(name); name != "."; name = path.Dir(name) {
			dirs[name] = true
		}
	}
	var drop func(dir, rel string, depth int) error
	drop = func(dir, rel string, depth int) error {
		entries, err := s.fs.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			name, at := path.Join(rel, e.Name), dir+"/"+e.Name
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case e.IsDir && dirs[name] && depth < maxDepth:
				err = drop(at, name, depth+1)
			case e.IsDir:
				err = s.deleteTree(ctx, at, depth+1)
			case e.Special || !keep[name]:
				err = s.fs.Remove(at)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	return drop(m.Dir, "", 0)
}

// receiveFile brings one file to its place: it is there, or lies elsewhere on this disk, or is fetched, from where the last try came to.
func (s *Store) receiveFile(ctx context.Context, m *Manifest, b blob, part string, r *ReceiveRequest) error {
	to := m.Dir + "/" + b.name
	done, err := s.inPlace(ctx, b, to, r)
	if !done && err == nil && r.Link != nil {
		var linked bool
		if linked, err = r.Link(b.name, to); err == nil && linked {
			done, err = s.inPlace(ctx, b, to, r)
		}
	}
	if err != nil {
		return err
	}
	if part = m.Dir + "/" + part; !done {
		if err := s.fetchFile(ctx, m, b, part, r.Fetch); err != nil {
			return err
		}
		if err := s.fs.Rename(part, to); err != nil {
			return err
		}
	} else if err := s.fs.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.Verified != nil {
		r.Verified(b.name)
	}
	return nil
}

// inPlace says whether a file is under its own name, and good. One that is not goes; whoever else has it under another name keeps it.
func (s *Store) inPlace(ctx context.Context, b blob, to string, r *ReceiveRequest) (bool, error) {
	f, err := s.fs.Open(to)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	size, err := f.Size()
	if err == nil && size != b.bytes {
		err = wrongSize(to, b.bytes, size, true)
	}
	if err == nil && (r.Known == nil || !r.Known(b.name)) {
		var good int
		if good, err = s.goodChunks(ctx, b, f, to); err == nil && int64(good) < chunkCount(b.bytes, b.chunkBytes) {
			err = corrupt(to, good, "a chunk that verifies", "another one")
		}
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		return true, s.fs.SyncFile(to)
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if r.Damaged != nil {
		r.Damaged(b.name, err)
	}
	return false, s.fs.Remove(to)
}

// goodChunks says how many chunks of a file, from its beginning on, verify. What can not be read counts as what does not verify.
func (s *Store) goodChunks(ctx context.Context, b blob, f ReadFile, name string) (int, error) {
	buf := AlignedBuffer(int(min(b.chunkBytes, b.bytes)))
	count := int(chunkCount(b.bytes, b.chunkBytes))
	for i := range count {
		if err := ctx.Err(); err != nil {
			return i, err
		}
		prefetch(f, int64(i+1)*b.chunkBytes, b.chunkBytes)
		data, err := readSum(f, name, b, i, buf)
		if err != nil {
			return i, nil //nolint:nilerr // it is fetched instead
		}
		s.progress(int64(len(data)))
	}
	return count, nil
}

// begin opens the file that an earlier try has left behind what is good of it, or a new one, and says which chunk comes next.
func (s *Store) begin(ctx context.Context, b blob, part string) (WriteFile, int, error) {
	bulk := b.bytes%Align == 0
	from, can := s.fs.(appender)
	f, err := s.fs.Open(part)
	if !can || errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			_ = f.Close() // nothing was read
		}
		w, err := s.fs.Create(part, bulk)
		return w, 0, err
	}
	if err != nil {
		return nil, 0, err
	}
	good, err := s.goodChunks(ctx, b, f, part)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, 0, err
	}
	w, err := from.Append(part, min(int64(good)*b.chunkBytes, b.bytes), bulk)
	return w, good, err
}

// received is one chunk on its way.
type received struct {
	data []byte
	err  error
}

// fetchFile fetches several chunks at once and writes them in order.
func (s *Store) fetchFile(ctx context.Context, m *Manifest, b blob, part string, fetch func(context.Context, string, int64, []byte) error) (err error) {
	f, first, err := s.begin(ctx, b, part)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	inFlight := make(chan chan received, receiveAhead)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(inFlight)
		for i := first; i < int(chunkCount(b.bytes, b.chunkBytes)); i++ {
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
		var r received
		select {
		case r = <-got: // also when it has ended: the next try need not fetch it
		default:
			select {
			case r = <-got:
			case <-gctx.Done():
				r.err = gctx.Err()
			}
		}
		if err = r.err; err == nil {
			_, err = f.Write(r.data)
			s.progress(int64(len(r.data)))
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

// PartBytes gives how many bytes of files that are being received lie below a directory.
func PartBytes(dir string) int64 {
	sum := int64(0)
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasPrefix(e.Name(), partPrefix) {
			if info, err := e.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil // what vanishes meanwhile counts nothing
	})
	return sum
}
