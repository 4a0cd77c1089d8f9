package remote

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/gangline/gangline/checkpoint"
)

// view shows a job's copies as a directory that can only be read, as it was when it was opened.
type view struct {
	ctx    context.Context //nolint:containedctx // of the command that looks
	bucket Bucket
	job    string
	sizes  map[string]int64
	dirs   map[string][]checkpoint.Entry
}

// View gives a job's copies as a directory, for whatever reads checkpoints: listing, verifying, comparing, exporting. It is as the bucket is now; writing
// gives EROFS. It lasts as long as ctx.
func View(ctx context.Context, b Bucket, job string) (checkpoint.FS, error) {
	objects, err := b.List(ctx, job+"/")
	if err != nil {
		return nil, fmt.Errorf("list the copies of %s: %w", job, err)
	}
	v := &view{ctx: ctx, bucket: b, job: job, sizes: map[string]int64{}, dirs: map[string][]checkpoint.Entry{".": nil}}
	for _, o := range objects {
		name := strings.TrimPrefix(o.Name, job+"/")
		if !fs.ValidPath(name) {
			continue // nothing of ours is called so
		}
		v.sizes[name] = o.Bytes
		v.add(name, checkpoint.Entry{Name: path.Base(name), Size: o.Bytes})
	}
	for dir := range v.dirs { // any order: each by itself
		slices.SortFunc(v.dirs[dir], func(a, b checkpoint.Entry) int { return strings.Compare(a.Name, b.Name) })
	}
	return v, nil
}

// add enters a name into its directory, and that into its own.
func (v *view) add(name string, e checkpoint.Entry) {
	dir := path.Dir(name)
	_, known := v.dirs[dir]
	v.dirs[dir] = append(v.dirs[dir], e)
	if !known {
		v.add(dir, checkpoint.Entry{Name: path.Base(dir), IsDir: true})
	}
}

// ReadDir lists what was there.
func (v *view) ReadDir(name string) ([]checkpoint.Entry, error) {
	entries, ok := v.dirs[path.Clean(name)]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return entries, nil
}

// Open opens an object.
func (v *view) Open(name string) (checkpoint.ReadFile, error) {
	size, ok := v.sizes[path.Clean(name)]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return &viewed{view: v, name: v.job + "/" + path.Clean(name), size: size}, nil
}

func readOnly(name string) error {
	return fmt.Errorf("%s: an object store is not written to as a directory: %w", name, syscall.EROFS)
}

// Create, and the others below, give EROFS.
func (v *view) Create(name string, _ bool) (checkpoint.WriteFile, error) { return nil, readOnly(name) }

// Mkdir gives EROFS.
func (v *view) Mkdir(name string) error { return readOnly(name) }

// Rename gives EROFS.
func (v *view) Rename(from, _ string) error { return readOnly(from) }

// Remove gives EROFS.
func (v *view) Remove(name string) error { return readOnly(name) }

// SyncFile gives EROFS.
func (v *view) SyncFile(name string) error { return readOnly(name) }

// SyncDir gives EROFS.
func (v *view) SyncDir(name string) error { return readOnly(name) }

// viewed is an open object.
type viewed struct {
	view *view
	name string
	size int64
}

// ReadAt reads a stretch; beyond the end it gives io.EOF.
func (f *viewed) ReadAt(p []byte, at int64) (int, error) {
	n := int64(len(p))
	if at >= f.size {
		return 0, io.EOF
	}
	n = min(n, f.size-at)
	if err := f.view.bucket.Read(f.view.ctx, f.name, at, p[:n]); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// Size gives the length in bytes.
func (f *viewed) Size() (int64, error) { return f.size, nil }

// Close does nothing.
func (f *viewed) Close() error { return nil }
