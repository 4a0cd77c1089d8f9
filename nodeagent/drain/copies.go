package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gangline/gangline/checkpoint"
)

// ErrNoRoom says that an agent takes no more copies.
var ErrNoRoom = errors.New("no room for copies of other nodes' checkpoints")

// validFile says whether a name is that of a shard below a job's directory.
func validFile(file string) bool {
	dir, base, ok := strings.Cut(file, "/")
	_, err := checkpoint.ParseRef(dir)
	return ok && err == nil && fs.ValidPath(file) && path.Base(base) == base && strings.HasPrefix(base, "shard-") && strings.HasSuffix(base, ".glck")
}

// copyAll gives copies of this node's shards to its peer, as long as they are not on the shared storage.
func (d *Drainer) copyAll(ctx context.Context) {
	to := d.peerNow()
	if to == "" {
		return
	}
	for _, p := range d.list() {
		if ctx.Err() != nil {
			return
		}
		d.copyPart(ctx, &p, to)
	}
	for _, h := range d.listParts() {
		if err := d.copyPartTo(ctx, h, to); err != nil && ctx.Err() == nil {
			d.warn("copy "+to, "a part of a checkpoint on the node's own disk has no copy on another node yet, it is tried again", "job", h.job, "part", h.name(), "to", to, "err", err)
		}
	}
	for job, steps := range d.listFiles() { // any order: each by itself
		for _, h := range steps {
			if err := d.copyFiles(ctx, h, to); err != nil && ctx.Err() == nil {
				d.warn("copy "+to, "a checkpoint on the node's own disk has no copy on another node yet, it is tried again", "job", job, "checkpoint", h.ref, "to", to, "err", err)
			}
		}
	}
}

// copyPart gives one shard to the peer, once.
func (d *Drainer) copyPart(ctx context.Context, p *part, to string) {
	d.mu.Lock()
	done := d.sent[p.path] == to
	d.mu.Unlock()
	if p.copy || done || strings.HasSuffix(p.file, ".tmp") {
		return
	}
	err := d.sendPart(ctx, p, to)
	if errors.Is(err, errNotYet) {
		return
	}
	if err != nil && ctx.Err() == nil {
		d.warn("copy "+to, "a shard on the node's own disk has no copy on another node yet, it is tried again", "job", p.job, "shard", p.name(), "to", to, "err", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent[p.path] = to
}

var errNotYet = errors.New("not written yet")

func (d *Drainer) sendPart(ctx context.Context, p *part, to string) error {
	store, err := d.store(p.job)
	if err != nil {
		return err
	}
	shard, err := store.LocalShard(ctx, p.ref, p.file)
	switch {
	case err != nil:
		return err
	case shard.State == checkpoint.ShardWriting:
		return errNotYet
	case shard.State == checkpoint.ShardComplete, shard.State == checkpoint.ShardOver:
		return nil
	}
	f, err := os.Open(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return errNotYet
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	return d.cfg.Send(ctx, to, p.job, p.name(), f)
}

// Keep takes a copy of another node's shard: content is read to its end. What it keeps is verified against what the rank said on the
// shared storage, durable, and known to whoever starts the job. Errors: checkpoint.ErrInvalid, ErrNoRoom, *checkpoint.CorruptError, content's, the
// file systems'.
func (d *Drainer) Keep(ctx context.Context, job uint64, file string, bytes int64, content io.Reader) error {
	if strings.HasPrefix(file, filesPrefix) {
		return d.keepFile(ctx, job, file, bytes, content)
	}
	if strings.HasPrefix(file, partsPrefix) {
		return d.keepPart(ctx, job, file, bytes, content)
	}
	if !validFile(file) || bytes < 1 {
		return fmt.Errorf("%w: a copy of %q of %d bytes", checkpoint.ErrInvalid, file, bytes)
	}
	to := filepath.Join(d.cfg.Root, copiesDir, jobName(job), filepath.FromSlash(file))
	if err := d.reserve(to, bytes); err != nil {
		return err
	}
	defer d.release(to)
	store, err := d.store(job)
	if err != nil {
		return err
	}
	dir, base := path.Split(file)
	ref, err := checkpoint.ParseRef(path.Clean(dir))
	if err != nil {
		return err
	}
	shard, err := store.LocalShard(ctx, ref, base)
	if err != nil {
		return err
	}
	if shard.State != checkpoint.ShardWaiting && shard.State != checkpoint.ShardDrained {
		return nil // it needs none any more
	}
	if shard.Info.Bytes != bytes {
		return fmt.Errorf("%w: %s has %d bytes, not %d", checkpoint.ErrInvalid, file, shard.Info.Bytes, bytes)
	}
	if err := keepFile(ctx, shard, to, content); err != nil {
		return fmt.Errorf("keep a copy of %s of job %d: %w", file, job, err)
	}
	return d.hold(store, &part{job: job, ref: ref, file: base, path: to, copy: true})
}

// keepFile writes the copy, verified and durable.
func keepFile(ctx context.Context, shard checkpoint.LocalShard, to string, content io.Reader) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(to), "*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(f.Name(), to)
		}
		if err == nil {
			err = syncDir(filepath.Dir(to))
		} else {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := shard.Copy(ctx, f, content); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// reserve takes room for a copy: half of what is bounded is for this node's own ranks.
func (d *Drainer) reserve(name string, bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := bytes
	for _, b := range d.copies { // any order: a sum
		sum += b
	}
	if _, twice := d.copies[name]; twice {
		return fmt.Errorf("%w: %s is being received", ErrNoRoom, name)
	}
	if d.used+sum > d.cfg.MaxBytes || d.kept+sum > d.cfg.MaxBytes/2 {
		return fmt.Errorf("%w: %d bytes of at most %d are taken", ErrNoRoom, d.used, d.cfg.MaxBytes)
	}
	d.copies[name] = bytes
	return nil
}

func (d *Drainer) release(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used += d.copies[name] // until the next look knows better
	d.kept += d.copies[name]
	delete(d.copies, name)
}
