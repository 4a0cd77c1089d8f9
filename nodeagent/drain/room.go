package drain

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
)

// tidy removes what need not stay: at once what is worthless and other nodes' shards that are safe, and the oldest of what is on the
// shared storage too, as far as room is needed for one more save of each job that runs here. A job's newest step stays while it runs
// here, and whatever is not on the shared storage. Who reads a file goes on reading it, and finds the next one on the shared storage.
func (d *Drainer) tidy(parts []part) {
	d.mu.Lock()
	files, copies, wholes := d.files, d.fileCopies, d.wholes
	d.mu.Unlock()
	used, kept := files+wholes, copies
	saves := map[uint64]map[checkpoint.Ref]int64{} // by job and step, of this node's ranks
	newest := map[uint64]checkpoint.Ref{}          // of those that are safe
	for i := range parts {
		p := &parts[i]
		used += p.bytes
		if p.copy {
			kept += p.bytes
			continue
		}
		if saves[p.job] == nil {
			saves[p.job] = map[checkpoint.Ref]int64{}
		}
		saves[p.job][p.ref] += p.bytes
		if p.fate == safe && p.ref.Compare(newest[p.job]) > 0 {
			newest[p.job] = p.ref
		}
	}
	next := int64(0) // what all jobs that run here save at once
	live := map[uint64]bool{}
	for job, steps := range saves { // any order: a sum
		if live[job] = d.cfg.Live(job); !live[job] {
			continue
		}
		largest := int64(0)
		for _, bytes := range steps { // any order: a maximum
			largest = max(largest, bytes)
		}
		next += largest
	}
	d.mu.Lock()
	d.next = next
	d.mu.Unlock()
	order := make([]*part, 0, len(parts))
	for i := range parts {
		order = append(order, &parts[i])
	}
	last := func(p *part) int {
		if p.ref == newest[p.job] {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(order, func(a, b *part) int { return cmp.Or(cmp.Compare(last(a), last(b)), a.at.Compare(b.at)) })
	for _, p := range order {
		idle := !live[p.job] && time.Since(p.at) > idleFor
		full := used+next > d.cfg.MaxBytes && (!live[p.job] || p.ref != newest[p.job])
		if p.fate == over || p.fate == safe && (p.copy || idle || full) {
			if d.remove(p) {
				used -= p.bytes
				if p.copy {
					kept -= p.bytes
				}
			}
		}
	}
	safely := int64(0)
	for i := range parts {
		if p := &parts[i]; p.fate == safe && !p.gone && !p.copy {
			safely += p.bytes
		}
	}
	d.mu.Lock()
	d.usage = Usage{Waiting: used - kept - safely - wholes, Safe: safely + wholes, Copies: kept}
	d.mu.Unlock()
	d.setUsed(used, kept)
}

func (d *Drainer) remove(p *part) bool {
	if err := os.Remove(p.path); err != nil {
		d.warn("remove "+p.path, "a local copy of a checkpoint cannot be removed", "path", p.path, "err", err)
		return false
	}
	p.gone = true
	_ = os.Remove(filepath.Dir(p.path)) // if it was the last one
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.noted, p.path)
	delete(d.sent, p.path)
	return true
}

// setUsed tells the jobs of this node how much they may still write.
func (d *Drainer) setUsed(used, kept int64) {
	d.mu.Lock()
	d.used, d.kept = used, kept
	for _, bytes := range d.copies { // any order: a sum
		used += bytes
	}
	d.mu.Unlock()
	jobs, err := os.ReadDir(filepath.Join(d.cfg.Root, ownDir))
	if err != nil {
		d.warn("list", "the directory for local checkpoints cannot be listed", "err", err)
		return
	}
	for _, e := range jobs {
		dir := filepath.Join(d.cfg.Root, ownDir, e.Name())
		if job, err := strconv.ParseUint(strings.TrimPrefix(e.Name(), "job-"), 10, 64); err == nil && !d.cfg.Live(job) {
			d.forget(dir)
			continue
		}
		if err := d.tellRoom(dir, d.cfg.MaxBytes-used); err != nil {
			d.warn("room", "the room for local checkpoints cannot be told: jobs save on the shared storage directly", "dir", dir, "err", err)
		}
	}
}

// forget removes the directory of a job that has left the node, if nothing is in it. One that is about to start has just been told its room.
func (d *Drainer) forget(dir string) {
	room := filepath.Join(dir, roomFile)
	info, err := os.Stat(room)
	if err == nil && time.Since(info.ModTime()) < lastRetry {
		return
	}
	if err == nil {
		_ = os.Remove(room)
	}
	_ = os.Remove(dir)
}

// Usage is what lies on the node's own disk, in bytes, as of the last second.
type Usage struct {
	Waiting int64 // this node's shards that are not known to be safe on the shared storage
	Safe    int64 // those that are, and whole copies that starts were made from
	Copies  int64 // other nodes' shards
	Drained int64 // what was written to the shared storage since New
}

// Usage may be called at any time and does not wait.
func (d *Drainer) Usage() Usage {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.usage
	u.Drained = d.drained.Load()
	return u
}

// Room is what the agent tells a job's ranks of the node's own disk. Ranks go by it for roomFor only: without an agent nothing drains.
type Room struct {
	Bytes int64 `json:"bytes"`
}

// tellRoom writes how many bytes there are, by the bound and by the disk itself.
func (d *Drainer) tellRoom(dir string, bytes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	data, err := json.Marshal(Room{Bytes: max(0, min(bytes, int64(st.Bavail)*st.Bsize))}) //nolint:gosec // no disk is so large
	if err != nil {
		return err
	}
	path := filepath.Join(dir, roomFile)
	if err := os.WriteFile(path+".tmp", data, 0o640); err != nil { //nolint:gosec // workers of a group may read it
		return err
	}
	return os.Rename(path+".tmp", path)
}
