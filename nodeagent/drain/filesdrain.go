package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gangline/gangline/checkpoint"
)

// A program's own files are saved in FilesDir, a checkpoint directory of its own, and committed there. Its agent notes that in the job's directory on the
// shared storage, local-files/CHECKPOINT~NODE, with the address of an agent that has it whole, and copies the files there; the last step is AdoptFiles, whose
// commit is the manifest as it was written on the node.
const (
	notesDir = "local-files"
	// filesPrefix begins the names by which agents ask each other for files: files/CHECKPOINT/NAME.
	filesPrefix = "files/"
	// Directories in which a node brings files together before they are adopted, in the background and at a start.
	drainPrefix  = "tmp-drain-"
	settlePrefix = "tmp-settle-"
)

// IsFiles says of a path whether it is of a checkpoint of files on this node's own disk, and where that will be on the shared storage.
func (d *Drainer) IsFiles(path string) (job uint64, ref checkpoint.Ref, shared string, ok bool) {
	rel, err := filepath.Rel(filepath.Join(d.cfg.Root, filesDir), path)
	if err != nil {
		return 0, ref, "", false
	}
	dir, base := filepath.Split(rel)
	if _, err := fmt.Sscanf(dir, "job-%d/", &job); err != nil || filepath.Clean(dir) != jobName(job) {
		return 0, ref, "", false
	}
	ref, err = checkpoint.ParseRef(base)
	return job, ref, filepath.Join(d.cfg.Shared, jobName(job), base), err == nil
}

// Announce notes where a checkpoint of files can be had, for a start on another node. It begins the checkpoint's epoch in the job's directory, as a commit
// there would: ErrFenced if a newer one has begun.
func (d *Drainer) Announce(ctx context.Context, job uint64, ref checkpoint.Ref) error {
	address := d.cfg.Address()
	name := filepath.Join(d.cfg.Shared, jobName(job), notesDir, ref.String()+"~"+d.cfg.Node)
	d.mu.Lock()
	known := d.noted[name] == address
	d.mu.Unlock()
	if known {
		return nil
	}
	store, err := d.store(job)
	if err == nil {
		err = store.Fence(ctx, ref.Epoch)
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Dir(name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // as the checkpoints themselves
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "*.tmp")
	if err != nil {
		return err
	}
	_, err = f.WriteString(address)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noted[name] = address
	return nil
}

// unnote takes away this node's note of a checkpoint of files.
func (d *Drainer) unnote(job uint64, ref checkpoint.Ref) {
	name := filepath.Join(d.cfg.Shared, jobName(job), notesDir, ref.String()+"~"+d.cfg.Node)
	_ = os.Remove(name) // it may have had none
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.noted, name)
}

// dropNotes takes away all nodes' notes of a checkpoint that is complete on the shared storage.
func dropNotes(dir string, ref checkpoint.Ref) {
	names, err := filepath.Glob(filepath.Join(dir, notesDir, ref.String()+"~*"))
	if err != nil {
		return // the pattern is bad: no node is called so
	}
	for _, name := range names {
		_ = os.Remove(name) // its own node may have been faster
	}
}

// forgetFiles takes away what is known of a checkpoint that is not here any more.
func (d *Drainer) forgetFiles(job uint64, h heldFiles) {
	_ = os.Remove(cameMark(h)) // it may have had none
	d.unnote(job, h.ref)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sent, h.path)
}

// announced gives, of the checkpoints of files that nodes have on their own disks, which nodes' agents can be asked, at which addresses.
func announced(dir string) (map[checkpoint.Ref]map[string]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, notesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := map[checkpoint.Ref]map[string]string{}
	for _, e := range entries {
		name, node, _ := strings.Cut(e.Name(), "~")
		ref, err := checkpoint.ParseRef(name)
		if err != nil || node == "" {
			continue
		}
		address, err := os.ReadFile(filepath.Join(dir, notesDir, e.Name()))
		if err != nil || len(address) > checkpoint.MaxNameBytes {
			continue // gone meanwhile
		}
		if out[ref] == nil {
			out[ref] = map[string]string{}
		}
		out[ref][node] = string(address)
	}
	return out, nil
}

// lookFiles brings a job's checkpoints of files to the shared storage, the earliest first.
func (d *Drainer) lookFiles(ctx context.Context, job uint64, steps []heldFiles) error {
	store, err := d.store(job)
	if err != nil {
		return err
	}
	fates := d.fatesOf(ctx, job, steps)
	for i, h := range steps {
		if h.copy || !h.whole || fates[i] != needed {
			continue
		}
		if err := d.Announce(ctx, job, h.ref); err != nil {
			return err
		}
		err := d.drainFiles(ctx, store, h)
		var damage *checkpoint.CorruptError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &damage):
			d.warn("drain "+h.path, "a checkpoint on the node's own disk is damaged, and never comes to the shared storage", "job", job, "checkpoint", h.ref, "err", err)
		case errors.Is(err, checkpoint.ErrFenced):
		case err != nil:
			d.warn("drain "+h.path, "a checkpoint on the node's own disk is not on the shared storage yet, it is tried again", "job", job, "checkpoint", h.ref, "err", err)
			return err
		default:
			dropNotes(filepath.Join(d.cfg.Shared, jobName(job)), h.ref)
			d.cfg.Log.Info("checkpoint is on the shared storage", "job", job, "checkpoint", h.ref, "bytes", h.bytes)
			d.cfg.Looked()
		}
	}
	return nil
}

// drainFiles copies one checkpoint, each chunk verified as it is read here, and once more there.
func (d *Drainer) drainFiles(ctx context.Context, store *checkpoint.Store, h heldFiles) error {
	local, m, err := openFiles(ctx, h.path)
	if err != nil {
		return err
	}
	manifest, err := local.ManifestFile(&m)
	if err != nil {
		return err
	}
	return adopt(ctx, store, filepath.Join(d.cfg.Shared, jobName(h.job)), drainPrefix+d.cfg.Node, manifest, func(to string) error {
		return local.CopyFiles(ctx, m, func(name string, content io.Reader) error {
			return writeFile(filepath.Join(to, filepath.FromSlash(name)), &paced{ctx: ctx, d: d, r: content})
		})
	})
}

// openFiles opens a checkpoint of files by its directory.
func openFiles(ctx context.Context, path string) (*checkpoint.Store, checkpoint.Manifest, error) {
	var m checkpoint.Manifest
	ref, err := checkpoint.ParseRef(filepath.Base(path))
	if err != nil {
		return nil, m, err
	}
	name, err := nameOf(filepath.Dir(path))
	if err != nil {
		return nil, m, err
	}
	store, err := openStore(filepath.Dir(path), name)
	if err == nil {
		m, err = store.Load(ctx, ref)
	}
	return store, m, err
}

// adopt has a checkpoint's files written to a directory of this node's in dir, from, and commits them there.
func adopt(ctx context.Context, store *checkpoint.Store, dir, from string, manifest []byte, fill func(to string) error) error {
	to := filepath.Join(dir, from)
	if err := os.RemoveAll(to); err != nil { // of a try that was cut short
		return err
	}
	err := os.Mkdir(to, 0o755) //nolint:gosec // as the program's own
	if err == nil {
		err = fill(to)
	}
	if err == nil {
		_, err = store.AdoptFiles(ctx, manifest, from)
	}
	return errors.Join(err, os.RemoveAll(to)) // it has moved, unless another one was there
}

// writeFile writes a file, which is made durable when it is adopted.
func writeFile(path string, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as the program's own
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // likewise
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, content, make([]byte, 1<<20))
	return errors.Join(err, f.Close())
}

// paced reads no faster than the drainer may write.
type paced struct {
	ctx context.Context //nolint:containedctx // of one copy
	d   *Drainer
	r   io.Reader
}

// Read waits for its turn.
func (p *paced) Read(buf []byte) (int, error) {
	n, err := p.r.Read(buf)
	if n > 0 {
		p.d.drained.Add(int64(n))
		if err := p.d.pace(p.ctx, n); err != nil {
			return 0, err
		}
	}
	return n, err
}

// complete says whether a checkpoint is complete on the shared storage.
func (d *Drainer) complete(job uint64, ref checkpoint.Ref) bool {
	_, err := os.Stat(filepath.Join(d.cfg.Shared, jobName(job), ref.String(), manifestFile))
	return err == nil
}

// copyFiles gives a copy of a checkpoint of files to the peer, the manifest last, unless that is done or not needed.
func (d *Drainer) copyFiles(ctx context.Context, h heldFiles, to string) error {
	d.mu.Lock()
	done := d.sent[h.path] == to
	d.mu.Unlock()
	if done || h.copy || !h.whole || d.complete(h.job, h.ref) {
		return nil
	}
	_, m, err := openFiles(ctx, h.path)
	if err != nil {
		return err
	}
	names := []string{}
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	for _, name := range slices.Concat(names, []string{manifestFile}) {
		f, err := os.Open(filepath.Join(h.path, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		err = d.cfg.Send(ctx, to, h.job, filesPrefix+h.ref.String()+"/"+name, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent[h.path] = to
	return nil
}

// splitFiles takes apart by what name another agent asks for a file of a checkpoint of files.
func splitFiles(file string) (ref checkpoint.Ref, name string, err error) {
	dir, name, ok := strings.Cut(strings.TrimPrefix(file, filesPrefix), "/")
	if ref, err = checkpoint.ParseRef(dir); err != nil || !ok || !fs.ValidPath(name) || name == "." {
		return ref, name, fmt.Errorf("%w: %q is no file of a checkpoint", checkpoint.ErrInvalid, file)
	}
	return ref, name, nil
}

// keepFile takes a file of another node's checkpoint. With the manifest, which comes last, all of them are verified and committed.
func (d *Drainer) keepFile(ctx context.Context, job uint64, file string, bytes int64, content io.Reader) error {
	ref, name, err := splitFiles(file)
	if err != nil || bytes < 0 {
		return fmt.Errorf("%w: a copy of %q of %d bytes", checkpoint.ErrInvalid, file, bytes)
	}
	if d.complete(job, ref) {
		return nil // it needs none any more
	}
	dir := d.FileCopiesDir(job)
	from := drainPrefix + ref.String()
	to := filepath.Join(dir, from, filepath.FromSlash(name))
	if err := d.reserve(to, bytes); err != nil {
		return err
	}
	defer d.release(to)
	content = io.LimitReader(content, bytes+1)
	if name != manifestFile {
		if err := writeFile(to, content); err != nil {
			return fmt.Errorf("keep a copy of %s of job %d: %w", file, job, err)
		}
		return nil
	}
	err = d.keepManifest(ctx, dir, from, bytes, content)
	if err == nil {
		err = d.Announce(ctx, job, ref)
	}
	if err != nil {
		return fmt.Errorf("keep a copy of %s of job %d: %w", ref, job, errors.Join(err, os.RemoveAll(filepath.Join(dir, from))))
	}
	return nil
}

func (d *Drainer) keepManifest(ctx context.Context, dir, from string, bytes int64, content io.Reader) error {
	if bytes > checkpoint.MaxManifestBytes {
		return fmt.Errorf("%w: a manifest of %d bytes", checkpoint.ErrInvalid, bytes)
	}
	data, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	m, err := checkpoint.ParseManifest(data)
	if err != nil {
		return err
	}
	store, err := openStore(dir, m.Job)
	if err == nil {
		err = store.Fence(ctx, m.Epoch)
	}
	if err == nil {
		_, err = store.AdoptFiles(ctx, data, from)
	}
	return err
}
