package drain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/whole"
)

const (
	// wholeDir holds whole copies of checkpoints of tensors that this node's jobs started from, by job.
	wholeDir = "whole"
	// wholePrefix begins the names by which agents ask each other for files of checkpoints that gangs start from: whole/CHECKPOINT/NAME.
	wholePrefix = "whole/"
	// startsDir, in the job's directory on the shared storage, holds notes CHECKPOINT~NODE: the address of an agent that starts ranks from that checkpoint, and
	// can be asked for what of it is on its disk.
	startsDir = "near-copies"
)

// WholeDir gives the directory on the node's own disk where whole copies of a job's checkpoints of tensors lie.
func (d *Drainer) WholeDir(job uint64) string {
	return filepath.Join(d.cfg.Root, wholeDir, jobName(job))
}

// OnDisk gives where a file of a checkpoint of tensors, named as by Manifest.FileNames, lies on the node's own disk: a shard of this node's ranks or of another's, or
// a file of a whole copy of this step or of another.
func (d *Drainer) OnDisk(job uint64, ref checkpoint.Ref, name string) (string, bool) {
	file := name // of an earlier checkpoint
	if !strings.Contains(name, "/") {
		file = ref.String() + "/" + name
	}
	all := []string{}
	for _, kind := range []string{ownDir, copiesDir, wholeDir} {
		all = append(all, filepath.Join(d.cfg.Root, kind, jobName(job), filepath.FromSlash(file)))
	}
	for _, step := range stepsIn(d.WholeDir(job)) {
		all = append(all, filepath.Join(d.WholeDir(job), step.String(), filepath.FromSlash(file)))
		if step == ref {
			all = append(all, filepath.Join(d.WholeDir(job), step.String(), filepath.FromSlash(name)))
		}
	}
	for _, at := range all {
		if info, err := os.Lstat(at); err == nil && info.Mode().IsRegular() {
			return at, true
		}
	}
	return "", false
}

func stepsIn(dir string) []checkpoint.Ref {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // none yet
	}
	var out []checkpoint.Ref
	for _, e := range entries {
		if ref, err := checkpoint.ParseRef(e.Name()); err == nil && e.IsDir() {
			out = append(out, ref)
		}
	}
	return out
}

// WholeName is by what name another agent is asked for a file.
func WholeName(ref checkpoint.Ref, name string) string {
	return wholePrefix + ref.String() + "/" + name
}

// ownWhole opens a file that another agent asks for so.
func (d *Drainer) ownWhole(job uint64, file string) (Source, error) {
	dir, name, ok := strings.Cut(strings.TrimPrefix(file, wholePrefix), "/")
	ref, err := checkpoint.ParseRef(dir)
	if err != nil || !ok || !fs.ValidPath(name) || !strings.HasPrefix(path.Base(name), "shard-") || !strings.HasSuffix(name, ".glck") || strings.Count(name, "/") > 1 {
		return nil, fmt.Errorf("%w: %q is no file of a checkpoint of tensors", checkpoint.ErrInvalid, file)
	}
	at, is := d.OnDisk(job, ref, name)
	if !is {
		return nil, fmt.Errorf("%s of job %d: %w", file, job, fs.ErrNotExist)
	}
	return os.Open(at)
}

// WholeRoom says whether so many bytes of a whole copy may be written: beside one more save of each job that runs here, by the bound and by the disk itself.
// Copies that no job of the node needs go for it.
func (d *Drainer) WholeRoom(job uint64, bytes int64) error {
	err := d.wholeFits(bytes)
	if err == nil {
		return nil
	}
	for other, steps := range d.listWhole() { // any order: each that is not needed
		if other == job || d.cfg.Live(other) || whole.Busy(d.WholeDir(other)) {
			continue
		}
		for _, h := range steps {
			if rerr := whole.Remove(h.path); rerr != nil {
				d.warn("remove "+h.path, "a local copy of a checkpoint cannot be removed", "path", h.path, "err", rerr)
				continue
			}
			d.mu.Lock()
			d.used -= h.bytes
			d.mu.Unlock()
		}
	}
	return d.wholeFits(bytes)
}

func (d *Drainer) wholeFits(bytes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.cfg.Root, &st); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	left := min(d.cfg.MaxBytes-d.used, int64(st.Bavail)*st.Bsize) - d.next //nolint:gosec // no disk is so large
	if bytes > left {
		return fmt.Errorf("%w: a whole copy of the checkpoint needs %d bytes more on the node's own disk, %d are left beside one more save of each job: give the agent a larger --checkpoint-local-size",
			ErrNoRoom, bytes, max(left, 0))
	}
	return nil
}

// UseWhole keeps the copy from which a job starts, and notes on the shared storage that this agent can be asked for what of it is here.
func (d *Drainer) UseWhole(job uint64, ref checkpoint.Ref) error {
	d.mu.Lock()
	d.wholeUse[job] = startedFrom{ref, time.Now()}
	d.mu.Unlock()
	dir := filepath.Join(d.cfg.Shared, jobName(job), startsDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries { // of starts that are over, and of nodes that died
		name, _, _ := strings.Cut(e.Name(), "~")
		if of, err := checkpoint.ParseRef(name); err == nil && of.Compare(ref) < 0 {
			_ = os.Remove(filepath.Join(dir, e.Name())) // another agent may have been faster
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as the checkpoints themselves
		return err
	}
	f, err := os.CreateTemp(dir, "*.tmp")
	if err != nil {
		return err
	}
	_, err = f.WriteString(d.cfg.Address())
	if err = errors.Join(err, f.Close()); err == nil { // a note that a power cut takes is written anew by the next start
		err = os.Rename(f.Name(), filepath.Join(dir, ref.String()+"~"+d.cfg.Node))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// StartingFrom gives the other agents that start ranks of the job from a checkpoint, by node.
func (d *Drainer) StartingFrom(job uint64, ref checkpoint.Ref) map[string]string {
	dir := filepath.Join(d.cfg.Shared, jobName(job), startsDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // the shared storage itself will say so
	}
	out := map[string]string{}
	for _, e := range entries {
		node, ok := strings.CutPrefix(e.Name(), ref.String()+"~")
		if !ok || node == d.cfg.Node || strings.HasSuffix(node, ".tmp") {
			continue
		}
		if address, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && len(address) > 0 && len(address) <= checkpoint.MaxNameBytes {
			out[node] = string(address)
		}
	}
	return out
}

func (d *Drainer) unnoteWhole(job uint64, ref checkpoint.Ref) {
	_ = os.Remove(filepath.Join(d.cfg.Shared, jobName(job), startsDir, ref.String()+"~"+d.cfg.Node)) // it may have had none
}

// listWhole gives the whole copies that lie there, begun ones too, by job. Bytes that are another file's too count there.
func (d *Drainer) listWhole() map[uint64][]heldFiles {
	out := map[uint64][]heldFiles{}
	jobs, err := os.ReadDir(filepath.Join(d.cfg.Root, wholeDir))
	if err != nil {
		return out // none yet
	}
	for _, j := range jobs {
		digits, isJob := strings.CutPrefix(j.Name(), "job-")
		job, err := strconv.ParseUint(digits, 10, 64)
		if !isJob || err != nil {
			continue
		}
		out[job] = []heldFiles{}
		for _, ref := range stepsIn(d.WholeDir(job)) {
			h := heldFiles{job: job, ref: ref, path: filepath.Join(d.WholeDir(job), ref.String())}
			if info, err := os.Stat(h.path); err == nil {
				h.at = info.ModTime()
			}
			_, err := os.Stat(filepath.Join(h.path, manifestFile))
			h.whole, h.bytes = err == nil, bytesAlone(h.path)
			out[job] = append(out[job], h)
		}
	}
	return out
}

// bytesAlone sums the files below a directory that have no other name.
func bytesAlone(dir string) int64 {
	sum := int64(0)
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // what vanishes meanwhile counts nothing
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Nlink < 2 {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}

// tidyWhole removes whole copies that no start wants any more: those older than the newest complete checkpoint, once the start from them is 10 minutes ago; those of
// jobs that have gone from the node for a day, or at once if there is no room. What is being made stays.
func (d *Drainer) tidyWhole(ctx context.Context) {
	sum := int64(0)
	for job, steps := range d.listWhole() { // any order: each by itself
		live, busy := d.cfg.Live(job), whole.Busy(d.WholeDir(job))
		d.mu.Lock()
		use := d.wholeUse[job]
		if !live && time.Since(use.at) > launchFor {
			delete(d.wholeUse, job)
		}
		full := d.used+d.next > d.cfg.MaxBytes
		d.mu.Unlock()
		newest, known := d.newestOf(ctx, job, steps)
		for _, h := range steps {
			starting := h.ref == use.ref && time.Since(use.at) < launchFor || time.Since(h.at) < lastRetry
			old := known && newest.Compare(h.ref) > 0 || !live && (full || time.Since(h.at) > idleFor)
			if busy || starting || !old {
				sum += h.bytes
				continue
			}
			if err := whole.Remove(h.path); err != nil {
				d.warn("remove "+h.path, "a local copy of a checkpoint cannot be removed", "path", h.path, "err", err)
				sum += h.bytes
				continue
			}
			d.unnoteWhole(job, h.ref)
		}
		if len(steps) == 0 && !live && !busy {
			d.forgetWhole(job)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wholes = sum
}

// newestOf gives the newest complete checkpoint on the shared storage, if there are copies to be judged by it and it can be looked at.
func (d *Drainer) newestOf(ctx context.Context, job uint64, steps []heldFiles) (checkpoint.Ref, bool) {
	if len(steps) == 0 {
		return checkpoint.Ref{}, false
	}
	store, err := d.store(job)
	if err != nil {
		return checkpoint.Ref{}, false
	}
	refs, err := store.List(ctx)
	if err != nil || len(refs) == 0 {
		return checkpoint.Ref{}, false
	}
	return slices.MaxFunc(refs, checkpoint.Ref.Compare), true
}

// forgetWhole removes the directory of a job that has left the node a day ago.
func (d *Drainer) forgetWhole(job uint64) {
	dir := d.WholeDir(job)
	if info, err := os.Stat(dir); err != nil || time.Since(info.ModTime()) < idleFor {
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		d.warn("remove "+dir, "what a job has left on the node's own disk cannot be removed", "dir", dir, "err", err)
	}
}
