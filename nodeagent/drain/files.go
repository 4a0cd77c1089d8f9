package drain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// filesDir holds checkpoints of programs' own files, by job, each whole in a directory of its own.
const filesDir = "files"

// heldFiles is a checkpoint of files on the node's own disk.
type heldFiles struct {
	job   uint64
	ref   checkpoint.Ref
	path  string
	bytes int64
	at    time.Time
	whole bool // it has its manifest
}

// FilesDir gives the directory on the node's own disk where a job's checkpoints of files lie.
func (d *Drainer) FilesDir(job uint64) string {
	return filepath.Join(d.cfg.Root, filesDir, jobName(job))
}

// FilesRoom says whether so many bytes may be written below FilesDir.
func (d *Drainer) FilesRoom(bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if left := d.cfg.MaxBytes - d.used; bytes > left {
		return fmt.Errorf("%w: %d bytes are needed on the node's own disk, %d are left: give the agent a larger --checkpoint-local-size", ErrNoRoom, bytes, max(left, 0))
	}
	return nil
}

// startedFrom is what a job started from, and when.
type startedFrom struct {
	ref checkpoint.Ref
	at  time.Time
}

// UseFiles keeps the checkpoint from which a job starts, as long as the job has workers here.
func (d *Drainer) UseFiles(job uint64, ref checkpoint.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inUse[job] = startedFrom{ref, time.Now()}
}

// listFiles gives what lies there, by job.
func (d *Drainer) listFiles() map[uint64][]heldFiles {
	out := map[uint64][]heldFiles{}
	root := filepath.Join(d.cfg.Root, filesDir)
	jobs, err := os.ReadDir(root)
	if err != nil {
		return out // none yet, or the disk fails: what cannot be read is left for the next look
	}
	for _, j := range jobs {
		digits, isJob := strings.CutPrefix(j.Name(), "job-")
		job, err := strconv.ParseUint(digits, 10, 64)
		if !isJob || err != nil {
			continue
		}
		steps, err := os.ReadDir(filepath.Join(root, j.Name()))
		if err != nil {
			continue
		}
		for _, s := range steps {
			ref, err := checkpoint.ParseRef(s.Name())
			info, ierr := s.Info()
			if err != nil || ierr != nil {
				continue
			}
			h := heldFiles{job: job, ref: ref, path: filepath.Join(root, j.Name(), s.Name()), at: info.ModTime()}
			h.bytes = checkpoint.TreeBytes(h.path)
			_, err = os.Stat(filepath.Join(h.path, manifestFile))
			h.whole = err == nil
			out[job] = append(out[job], h)
		}
	}
	return out
}

// launchFor bounds how long a launch takes to have a worker.
const launchFor = 10 * time.Minute

// manifestFile is what makes a checkpoint whole.
const manifestFile = "MANIFEST.json"

// tidyFiles removes checkpoints of files that need not stay here: those that are complete on the shared storage, but for the newest of a job and the one that it
// started from; those of jobs that have gone from the node for a day. Whatever is not on the shared storage, or cannot be looked for there, stays.
func (d *Drainer) tidyFiles(ctx context.Context) {
	sum := int64(0)
	for job, steps := range d.listFiles() { // any order: each by itself
		live := d.cfg.Live(job)
		d.mu.Lock()
		if !live && time.Since(d.inUse[job].at) > launchFor {
			delete(d.inUse, job)
		}
		used := d.inUse[job].ref
		d.mu.Unlock()
		safely := d.safeFiles(ctx, job, steps)
		newest := checkpoint.Ref{}
		for i, h := range steps {
			if safely[i] && h.ref.Compare(newest) > 0 {
				newest = h.ref
			}
		}
		for i, h := range steps {
			age := time.Since(h.at)
			keep := h.ref == used || h.ref == newest && (live || age < idleFor) || age < lastRetry // it was fetched just now, for a start
			if !safely[i] || keep {
				sum += h.bytes
				continue
			}
			if err := os.RemoveAll(h.path); err != nil {
				d.warn("remove "+h.path, "a local copy of a checkpoint cannot be removed", "path", h.path, "err", err)
				sum += h.bytes
			}
		}
		if !live {
			_ = os.Remove(d.FilesDir(job)) // if nothing is left
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = sum
}

// safeFiles says which are complete on the shared storage.
func (d *Drainer) safeFiles(ctx context.Context, job uint64, steps []heldFiles) []bool {
	out := make([]bool, len(steps))
	store, err := d.store(job)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.warn("open "+jobName(job), "a job's checkpoints on the shared storage cannot be opened: what it saves stays on this node until they can", "job", job, "err", err)
		}
		return out
	}
	refs, err := store.List(ctx)
	if err != nil {
		return out
	}
	complete := map[checkpoint.Ref]bool{}
	for _, ref := range refs {
		complete[ref] = true
	}
	for i, h := range steps {
		// A half one is of a fetch that was cut short, or that goes on just now; the next start fetches it anew.
		out[i] = complete[h.ref] && (h.whole || time.Since(h.at) > launchFor)
	}
	return out
}
