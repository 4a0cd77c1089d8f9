package drain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// heldPart is a node's part of a checkpoint of several nodes' files, on this node's disk, or in this node's directory on the shared storage.
type heldPart struct {
	copy         bool // of another node
	far          bool // on the shared storage: it takes no room here
	job          uint64
	ref          checkpoint.Ref
	index, count int
	path         string
	at           time.Time
}

func (h *heldPart) name() string { return checkpoint.PartDir(h.ref, h.index, h.count) }

// listParts gives what lies there, by job and then by step.
func (d *Drainer) listParts() []heldPart {
	var out []heldPart
	d.eachJob(func(dir string, job uint64, copied bool) {
		out = append(out, partsIn(dir, heldPart{job: job, copy: copied})...)
	})
	for _, g := range d.gangsNow() {
		if g.Dir != d.FilesDir(g.Job) {
			out = append(out, partsIn(g.Dir, heldPart{job: g.Job, far: true})...)
		}
	}
	slices.SortStableFunc(out, func(a, b heldPart) int { return cmp.Or(cmp.Compare(a.job, b.job), a.ref.Compare(b.ref)) })
	return out
}

func partsIn(dir string, as heldPart) []heldPart {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []heldPart
	for _, e := range entries {
		ref, index, count, ok := checkpoint.ParsePartDir(e.Name())
		info, err := e.Info()
		if !ok || err != nil {
			continue
		}
		h := as
		h.ref, h.index, h.count, h.path, h.at = ref, index, count, filepath.Join(dir, e.Name()), info.ModTime()
		out = append(out, h)
	}
	return out
}

// drainParts brings this node's parts to the shared storage, and commits what is whole there.
func (d *Drainer) drainParts(ctx context.Context) {
	for _, h := range d.listParts() {
		if h.copy || !d.due(h.job) {
			continue
		}
		err := d.drainPart(ctx, h)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.warn("drain "+h.path, "a part of a checkpoint on the node's own disk is not on the shared storage yet, it is tried again", "job", h.job, "part", h.name(), "err", err)
			d.went(h.job, err)
		}
	}
}

// drainPart does one part's turn.
func (d *Drainer) drainPart(ctx context.Context, h heldPart) error {
	store, err := d.store(h.job)
	if err != nil {
		return err
	}
	parts, err := store.LookAtParts(ctx, h.ref)
	if err != nil || !parts.Joined || parts.Complete {
		return err // complete ones go with the tidying
	}
	if slices.Contains(parts.Drained, h.index) && len(parts.Drained) < parts.Count && !d.now("settle "+h.path) {
		return nil // other nodes' parts are to come; what has been joined may be long to read
	}
	if err := d.holdPart(store, h); err != nil {
		return err
	}
	if begun, err := store.Epoch(ctx); err != nil || begun > h.ref.Epoch {
		return err // what a start has not brought nobody wants any more
	}
	if err := store.DrainPart(ctx, h.ref, h.index, openIn(h.path), func(ctx context.Context, bytes int) error {
		d.drained.Add(int64(bytes))
		return d.pace(ctx, bytes)
	}); err != nil {
		return err
	}
	m, _, err := store.SettleParts(ctx, h.ref)
	if errors.Is(err, checkpoint.ErrIncomplete) || errors.Is(err, checkpoint.ErrFenced) {
		return nil // other nodes' parts are to come, or the job has gone on
	}
	if err != nil {
		return err
	}
	d.cfg.Log.Info("checkpoint is on the shared storage", "job", h.job, "checkpoint", h.ref, "bytes", m.Bytes())
	d.cfg.Looked()
	if err := store.SweepParts(ctx, h.ref); err != nil { // its own notes go with the next one: agents that come late learn by them
		d.warn("sweep "+h.path, "notes of older checkpoints are not removed", "job", h.job, "err", err)
	}
	return nil
}

// openIn opens the files of a part in its directory.
func openIn(dir string) checkpoint.PartSource {
	return func(name string) (io.ReaderAt, io.Closer, error) {
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
		return f, f, err
	}
}

// holdPart notes that this agent has a part.
func (d *Drainer) holdPart(store *checkpoint.Store, h heldPart) error {
	address := d.cfg.Address()
	d.mu.Lock()
	known := d.noted[h.path] == address
	d.mu.Unlock()
	if known {
		return nil
	}
	if err := store.HoldPart(h.ref, h.index, h.count, d.cfg.Node, address); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noted[h.path] = address
	return nil
}

// tidyParts removes parts that need not stay: those of checkpoints that are complete on the shared storage, or that no start wants any more. It gives the bytes that stay here,
// and of these the copies for other nodes.
func (d *Drainer) tidyParts(ctx context.Context) (sum, kept int64) {
	for _, h := range d.listParts() {
		over, err := d.partOver(ctx, h)
		if err == nil && over {
			if err = os.RemoveAll(h.path); err == nil {
				d.mu.Lock()
				delete(d.noted, h.path)
				delete(d.sent, h.path)
				d.mu.Unlock()
				continue
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
			d.warn("tidy "+h.path, "a part of a checkpoint on the node's own disk stays there", "path", h.path, "err", err)
		}
		if h.far {
			continue
		}
		bytes := checkpoint.TreeBytes(h.path)
		if sum += bytes; h.copy {
			kept += bytes
		}
	}
	return sum, kept
}

// partOver says whether nobody needs a part any more. A job's directory that cannot be looked at, or is not mounted, says nothing of it.
func (d *Drainer) partOver(ctx context.Context, h heldPart) (bool, error) {
	store, err := d.store(h.job)
	if err != nil {
		return false, err
	}
	complete, err := store.List(ctx)
	if err != nil {
		return false, err
	}
	if slices.Contains(complete, h.ref) {
		return true, nil
	}
	epoch, err := store.Epoch(ctx)
	overtaken := len(complete) > 0 && complete[0].Compare(h.ref) > 0
	return err == nil && time.Since(h.at) > lastRetry && (overtaken || epoch > h.ref.Epoch), err
}

// partsPrefix begins the names by which agents ask each other for files of parts: parts/PART/NAME; without a name it says that all of them have come.
const partsPrefix = "parts/"

// splitPart takes apart such a name.
func splitPart(file string) (h heldPart, name string, err error) {
	dir, name, ok := strings.Cut(strings.TrimPrefix(file, partsPrefix), "/")
	var isPart bool
	h.ref, h.index, h.count, isPart = checkpoint.ParsePartDir(dir)
	if !ok || !isPart || name != "" && (!fs.ValidPath(name) || name == ".") {
		return h, name, fmt.Errorf("%w: %q is no file of a part of a checkpoint", checkpoint.ErrInvalid, file)
	}
	return h, name, nil
}

// ownPart opens a file of a part that this node has, of its own or of another node. Whoever asks verifies what it reads.
func (d *Drainer) ownPart(job uint64, file string) (Source, error) {
	h, name, err := splitPart(file)
	if err == nil && name == "" {
		err = fmt.Errorf("%w: %q names no file", checkpoint.ErrInvalid, file)
	}
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{d.FilesDir(job), d.FileCopiesDir(job)} {
		var f *os.File
		if f, err = os.Open(filepath.Join(dir, h.name(), filepath.FromSlash(name))); err == nil {
			return f, nil
		}
	}
	return nil, err
}

// copyPartTo gives a copy of a part to the peer, unless that is done or not needed.
func (d *Drainer) copyPartTo(ctx context.Context, h heldPart, to string) error {
	d.mu.Lock()
	done := d.sent[h.path] == to
	d.mu.Unlock()
	if done || h.copy || h.far || d.complete(h.job, h.ref) {
		return nil
	}
	store, err := d.store(h.job)
	if err != nil {
		return err
	}
	p, err := store.LoadPart(h.ref, h.index, h.count)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not final yet
	}
	if err != nil {
		return err
	}
	for _, info := range p.Files {
		f, err := os.Open(filepath.Join(h.path, filepath.FromSlash(info.Name)))
		if err != nil {
			return err
		}
		err = d.cfg.Send(ctx, to, h.job, partsPrefix+h.name()+"/"+info.Name, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	end, err := os.Open(os.DevNull)
	if err == nil {
		err = errors.Join(d.cfg.Send(ctx, to, h.job, partsPrefix+h.name()+"/", end), end.Close())
	}
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.sent[h.path] = to
	}
	return err
}

// keepPart takes a file of another node's part, verified by what that node has said on the shared storage. At the end all of them must be there; then a start knows of it.
func (d *Drainer) keepPart(ctx context.Context, job uint64, file string, bytes int64, content io.Reader) error {
	h, name, err := splitPart(file)
	if err != nil {
		return err
	}
	if d.complete(job, h.ref) {
		return nil // it needs none any more
	}
	store, err := d.store(job)
	if err != nil {
		return err
	}
	p, err := store.LoadPart(h.ref, h.index, h.count)
	if err != nil {
		return err
	}
	h.job, h.path = job, filepath.Join(d.FileCopiesDir(job), h.name())
	if name == "" {
		for _, f := range p.Files {
			if info, err := os.Stat(filepath.Join(h.path, filepath.FromSlash(f.Name))); err != nil || info.Size() != f.Bytes {
				return errors.Join(err, fmt.Errorf("%w: %q of the copy of %s has not come", checkpoint.ErrIncomplete, f.Name, h.name()))
			}
		}
		return d.holdPart(store, h)
	}
	at := slices.IndexFunc(p.Files, func(f checkpoint.FileInfo) bool { return f.Name == name })
	if at < 0 || p.Files[at].Bytes != bytes {
		return fmt.Errorf("%w: %s has no file %q of %d bytes", checkpoint.ErrInvalid, h.name(), name, bytes)
	}
	to := filepath.Join(h.path, filepath.FromSlash(name))
	if err := d.reserve(to, bytes); err != nil {
		return err
	}
	defer d.release(to)
	if err := p.CopyFile(ctx, p.Files[at], content, to); err != nil {
		return fmt.Errorf("keep a copy of %s of job %d: %w", file, job, err)
	}
	return nil
}
