package drain

import (
	"context"
	"errors"
	"fmt"
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

// Checkpoints of programs' own files, by job, each whole in a directory of its own.
const (
	filesDir      = "files"      // saved, or fetched, by this node
	fileCopiesDir = "filecopies" // of other nodes
)

// heldFiles is a checkpoint of files on the node's own disk.
type heldFiles struct {
	copy  bool // of another node
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
	left := d.cfg.MaxBytes - d.used
	var st unix.Statfs_t
	if err := unix.Statfs(d.cfg.Root, &st); err == nil {
		left = min(left, int64(st.Bavail)*st.Bsize) //nolint:gosec // no disk is so large
	}
	if bytes > left {
		return fmt.Errorf("%w: %d bytes are needed on the node's own disk, %d are left: free space there, or give the agent a larger --checkpoint-local-size", ErrNoRoom, bytes, max(left, 0))
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

// FileCopiesDir gives the directory where copies of other nodes' checkpoints of files lie.
func (d *Drainer) FileCopiesDir(job uint64) string {
	return filepath.Join(d.cfg.Root, fileCopiesDir, jobName(job))
}

// listFiles gives what lies there, by job.
func (d *Drainer) listFiles() map[uint64][]heldFiles {
	out := map[uint64][]heldFiles{}
	d.eachJob(func(dir string, job uint64, copied bool) { out[job] = append(out[job], listSteps(dir, job, copied)...) })
	return out
}

// eachJob calls do with each job's directory of files, and of copies of other nodes' files.
func (d *Drainer) eachJob(do func(dir string, job uint64, copied bool)) {
	for _, kind := range []string{filesDir, fileCopiesDir} {
		jobs, err := os.ReadDir(filepath.Join(d.cfg.Root, kind))
		if err != nil {
			continue // none yet, or the disk fails: what cannot be read is left for the next look
		}
		for _, j := range jobs {
			digits, isJob := strings.CutPrefix(j.Name(), "job-")
			if job, err := strconv.ParseUint(digits, 10, 64); isJob && err == nil {
				do(filepath.Join(d.cfg.Root, kind, j.Name()), job, kind == fileCopiesDir)
			}
		}
	}
}

func listSteps(dir string, job uint64, copied bool) []heldFiles {
	steps, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []heldFiles
	for _, s := range steps {
		ref, err := checkpoint.ParseRef(s.Name())
		info, ierr := s.Info()
		if err != nil || ierr != nil {
			continue
		}
		h := heldFiles{job: job, ref: ref, path: filepath.Join(dir, s.Name()), at: info.ModTime(), copy: copied}
		h.bytes = checkpoint.TreeBytes(h.path)
		_, err = os.Stat(filepath.Join(h.path, manifestFile))
		h.whole = err == nil
		out = append(out, h)
	}
	return out
}

// launchFor bounds how long a launch takes to have a worker.
const launchFor = 10 * time.Minute

// manifestFile is what makes a checkpoint whole.
const manifestFile = "MANIFEST.json"

// tidyFiles removes checkpoints of files that need not stay here: those that are complete on the shared storage, but for the newest of a job and the one that it
// started from; those of jobs that have gone from the node for a day; and those that no start wants any more. Whatever is not on the shared storage, or cannot be looked for there, stays.
func (d *Drainer) tidyFiles(ctx context.Context) {
	sum, kept := int64(0), int64(0)
	for job, steps := range d.listFiles() { // any order: each by itself
		live := d.cfg.Live(job)
		d.mu.Lock()
		if !live && time.Since(d.inUse[job].at) > launchFor {
			delete(d.inUse, job)
		}
		used := d.inUse[job].ref
		d.mu.Unlock()
		fates := d.fatesOf(ctx, job, steps)
		newest := checkpoint.Ref{}
		for i, h := range steps {
			if fates[i] == safe && !h.copy && h.ref.Compare(newest) > 0 {
				newest = h.ref
			}
		}
		for i, h := range steps {
			age := time.Since(h.at)
			keep := h.ref == used || !h.copy && h.ref == newest && (live || age < idleFor) || age < lastRetry // it was fetched just now, for a start
			if fates[i] != needed && !keep {
				err := os.RemoveAll(h.path)
				if err == nil {
					d.forgetFiles(job, h)
					continue
				}
				d.warn("remove "+h.path, "a local copy of a checkpoint cannot be removed", "path", h.path, "err", err)
			}
			if sum += h.bytes; h.copy {
				kept += h.bytes
			}
		}
	}
	parts, partCopies := d.tidyParts(ctx)
	sum, kept = sum+parts, kept+partCopies
	d.forgetJobs()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files, d.fileCopies = sum, kept
}

// A checkpoint that has been complete on the shared storage is never brought there again: a person who removes it means it. An empty file beside it says so.
func cameMark(h heldFiles) string { return h.path + ".drained" }

func wasThere(h heldFiles) bool {
	_, err := os.Stat(cameMark(h))
	return err == nil
}

// cameThere notes that, and takes away the note by which starts on other nodes find it.
func (d *Drainer) cameThere(h heldFiles) {
	if wasThere(h) {
		return
	}
	f, err := os.Create(cameMark(h))
	if err == nil {
		err = errors.Join(f.Close(), syncDir(filepath.Dir(h.path)))
	}
	if err != nil {
		d.warn("mark "+h.path, "that a checkpoint has come to the shared storage is not noted on the node's own disk: if it is removed there by hand, it may come back", "path", h.path, "err", err)
		return
	}
	d.unnote(h.job, h.ref)
}

// forgetJobs removes the directories of jobs that have left the node a day ago, with what their programs have left there, unless a checkpoint is in it.
func (d *Drainer) forgetJobs() {
	for _, kind := range []string{filesDir, fileCopiesDir} {
		jobs, err := os.ReadDir(filepath.Join(d.cfg.Root, kind))
		if err != nil {
			continue
		}
		for _, j := range jobs {
			dir := filepath.Join(d.cfg.Root, kind, j.Name())
			digits, isJob := strings.CutPrefix(j.Name(), "job-")
			job, err := strconv.ParseUint(digits, 10, 64)
			info, ierr := j.Info()
			if !isJob || err != nil || ierr != nil || d.cfg.Live(job) || time.Since(info.ModTime()) < idleFor || len(listSteps(dir, job, false)) > 0 || len(partsIn(dir, heldPart{})) > 0 {
				continue
			}
			if err := os.RemoveAll(dir); err != nil {
				d.warn("remove "+dir, "what a job has left on the node's own disk cannot be removed", "dir", dir, "err", err)
			}
		}
	}
}

// fatesOf says which are complete on the shared storage, and which are of no use any more.
func (d *Drainer) fatesOf(ctx context.Context, job uint64, steps []heldFiles) []fate {
	out := make([]fate, len(steps))
	store, err := d.store(job)
	var refs []checkpoint.Ref
	var epoch uint64
	if err == nil {
		refs, err = store.List(ctx)
	}
	if err == nil {
		epoch, err = store.Epoch(ctx)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.warn("open "+jobName(job), "a job's checkpoints on the shared storage cannot be opened: what it saves stays on this node until they can", "job", job, "err", err)
		}
		return out
	}
	for i, h := range steps {
		// A half one is of a commit or a fetch that was cut short, or that goes on just now; the next one does it anew.
		settled := h.whole || time.Since(h.at) > launchFor
		switch {
		case settled && slices.Contains(refs, h.ref):
			out[i] = safe
			d.cameThere(h)
		case wasThere(h): // a person has removed it there, or retention has
			out[i] = over
		case settled && (h.ref.Epoch < epoch || len(refs) > 0 && refs[0].Compare(h.ref) > 0): // removed there, or fenced off before it came
			out[i] = over
		}
	}
	return out
}
