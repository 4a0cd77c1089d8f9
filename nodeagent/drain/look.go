package drain

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
)

// part is a shard's file on the node's own disk.
type part struct {
	job   uint64
	ref   checkpoint.Ref
	file  string // in the step's directory
	path  string
	copy  bool // of another node's rank
	bytes int64
	at    time.Time
	shard checkpoint.LocalShard
	known bool // shard is set
	fate  fate
	gone  bool // removed by this look
}

// fate is what is known of a part for good.
type fate int

const (
	needed fate = iota
	safe        // its checkpoint is complete on the shared storage
	over        // worthless
)

func (p *part) name() string { return p.ref.String() + "/" + p.file }

// Look drains what waits, job by job and the earliest steps first. It may take as long as the shared storage does.
func (d *Drainer) Look(ctx context.Context) {
	parts := d.list()
	for first := 0; first < len(parts); {
		end := first + 1
		for end < len(parts) && parts[end].job == parts[first].job {
			end++
		}
		job := parts[first].job
		if d.due(job) {
			err := d.lookAt(ctx, job, parts[first:end])
			if ctx.Err() != nil {
				return
			}
			d.went(job, err)
		}
		first = end
	}
	d.drainParts(ctx)
	for job, steps := range d.listFiles() { // any order: each by itself
		if !d.due(job) {
			continue
		}
		err := d.lookFiles(ctx, job, steps)
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, fs.ErrNotExist) { // no directory, or not mounted: said by the tidying
			d.went(job, err)
		}
	}
}

// list gives all shards on the node's own disk, by job and then by step.
func (d *Drainer) list() []part {
	var out []part
	for _, kind := range []string{ownDir, copiesDir} {
		root := filepath.Join(d.cfg.Root, kind)
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return nil //nolint:nilerr // what vanishes meanwhile, or cannot be read, is left for the next look
			}
			rel, _ := filepath.Rel(root, path)
			elems := strings.Split(filepath.ToSlash(rel), "/")
			info, err := e.Info()
			if err != nil || len(elems) != 3 {
				return nil //nolint:nilerr // as above
			}
			digits, isJob := strings.CutPrefix(elems[0], "job-")
			job, err := strconv.ParseUint(digits, 10, 64)
			ref, rerr := checkpoint.ParseRef(elems[1])
			if !isJob || err != nil || rerr != nil {
				return nil
			}
			out = append(out, part{job: job, ref: ref, file: elems[2], path: path, copy: kind == copiesDir, bytes: info.Size(), at: info.ModTime()})
			return nil
		})
	}
	d.mu.Lock()
	fates := make(map[string]fate, len(out))
	for i := range out {
		if out[i].fate = d.fates[out[i].path]; out[i].fate != needed {
			fates[out[i].path] = out[i].fate
		}
	}
	d.fates = fates // of those that are there
	d.mu.Unlock()
	slices.SortStableFunc(out, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.job, b.job), a.ref.Compare(b.ref), strings.Compare(a.file, b.file))
	})
	return out
}

// lookAt does one job's turn. The error is of the shared storage: the job's turn comes later then.
func (d *Drainer) lookAt(ctx context.Context, job uint64, parts []part) error {
	store, err := d.store(job)
	var epoch uint64
	if err == nil {
		epoch, err = store.Epoch(ctx)
	}
	if err != nil {
		d.warn("open "+jobName(job), "a job's checkpoints on the shared storage cannot be opened: what it saves stays on this node until they can", "job", job, "err", err)
		return err
	}
	var errs []error
	settle := map[checkpoint.Ref]bool{}
	for first := 0; first < len(parts); {
		end := first + 1
		for end < len(parts) && parts[end].ref == parts[first].ref {
			end++
		}
		step := parts[first:end]
		errs = append(errs, d.lookAtStep(ctx, store, step, epoch))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for i := range step {
			if step[i].known && step[i].shard.State == checkpoint.ShardDrained {
				settle[step[i].ref] = true
			}
		}
		first = end
	}
	for i := range parts {
		if ref := parts[i].ref; settle[ref] {
			delete(settle, ref)
			errs = append(errs, d.settle(ctx, store, job, ref))
		}
	}
	return errors.Join(errs...)
}

// lookAtStep brings this node's shards of one step to the shared storage.
func (d *Drainer) lookAtStep(ctx context.Context, store *checkpoint.Store, step []part, epoch uint64) error {
	var files []string
	var of []*part
	for i := range step {
		p := &step[i]
		switch {
		case p.fate != needed:
		case !strings.HasSuffix(p.file, ".tmp"):
			files, of = append(files, p.file), append(of, p)
		case p.ref.Epoch < epoch || time.Since(p.at) > idleFor: // who wrote it is gone
			p.fate = over
			d.setFate(p)
		}
	}
	if len(files) == 0 {
		return nil
	}
	shards, err := store.LocalShards(ctx, step[0].ref, files)
	if err != nil {
		d.warn("look at "+step[0].path, "what became of shards on the node's own disk cannot be seen on the shared storage", "job", step[0].job, "checkpoint", step[0].ref, "err", err)
		return err
	}
	var errs []error
	for i, p := range of {
		p.shard, p.known = shards[i], true
		err := d.lookAtPart(ctx, store, p, epoch)
		d.setFate(p)
		if err != nil && ctx.Err() == nil {
			errs = append(errs, err)
			d.warn("drain "+p.path, "a shard on the node's own disk is not on the shared storage yet, it is tried again", "job", p.job, "shard", p.name(), "err", err)
		}
	}
	return errors.Join(errs...)
}

// lookAtPart brings one shard to the shared storage.
func (d *Drainer) lookAtPart(ctx context.Context, store *checkpoint.Store, p *part, epoch uint64) error {
	var err error
	switch p.shard.State {
	case checkpoint.ShardOver, checkpoint.ShardWriting:
		// The epoch's mark is looked at too: storage that is not mounted has no steps either.
		gone := p.ref.Epoch < epoch
		if p.shard.State == checkpoint.ShardOver && !gone {
			gone, err = overtaken(ctx, store, p.ref)
		}
		if gone {
			p.fate = over
		}
		return err
	case checkpoint.ShardComplete:
		p.fate = safe
		return nil
	case checkpoint.ShardWaiting, checkpoint.ShardDrained:
		if err := d.hold(store, p); err != nil {
			return err
		}
	}
	if p.shard.State != checkpoint.ShardWaiting || p.copy {
		return nil // a copy is for a start that misses the first one
	}
	f, err := os.Open(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the rank writes it anew
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	if err := store.Drain(ctx, p.shard, f, d.pace); err != nil {
		return err
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // advice: the page cache is the training's
	d.drained.Add(p.shard.Info.Bytes)
	p.shard.State = checkpoint.ShardDrained
	return nil
}

func (d *Drainer) setFate(p *part) {
	if p.fate != needed {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.fates[p.path] = p.fate
	}
}

// overtaken says whether a later checkpoint is complete.
func overtaken(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref) (bool, error) {
	refs, err := store.List(ctx)
	return err == nil && len(refs) > 0 && refs[0].Compare(ref) > 0, err
}

// hold notes that this agent has the part.
func (d *Drainer) hold(store *checkpoint.Store, p *part) error {
	address := d.cfg.Address()
	d.mu.Lock()
	known := d.noted[p.path] == address
	d.mu.Unlock()
	if known {
		return nil
	}
	if err := store.Hold(p.ref, p.file, d.cfg.Node, address); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noted[p.path] = address
	return nil
}

// settle commits a step if all its shards have come.
func (d *Drainer) settle(ctx context.Context, store *checkpoint.Store, job uint64, ref checkpoint.Ref) error {
	m, _, err := store.Settle(ctx, ref)
	switch {
	case err == nil:
		d.cfg.Log.Info("checkpoint is on the shared storage", "job", job, "checkpoint", ref, "bytes", m.Bytes())
		d.cfg.Looked()
		return nil
	case errors.Is(err, checkpoint.ErrIncomplete), errors.Is(err, checkpoint.ErrFenced):
		return nil // other nodes' shards are to come, or the job has gone on
	}
	d.warn("settle "+jobName(job), "a checkpoint whose shards are on the shared storage is not committed yet, it is tried again", "job", job, "checkpoint", ref, "err", err)
	return err
}
