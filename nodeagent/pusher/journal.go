package pusher

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The journal holds a file for each job of which a checkpoint is due to be copied, JOB.json, so that the last one of a job that has ended is
// copied though the agent was restarted meanwhile. It need not be durable: after a power cut the job's next checkpoint is copied.

func (p *Pusher) entry(job uint64) string {
	return filepath.Join(p.cfg.StateDir, strconv.FormatUint(job, 10)+".json")
}

// keep notes that a job's newest checkpoint is due.
func (p *Pusher) keep(job Job) {
	data, err := json.Marshal(job)
	if err == nil {
		temp := p.entry(job.Key.Job) + ".tmp"
		if err = os.WriteFile(temp, data, 0o600); err == nil {
			err = os.Rename(temp, p.entry(job.Key.Job))
		}
	}
	if err != nil {
		p.cfg.Log.Warn("a checkpoint that is to be copied is not noted: if the agent ends now, it is not copied", "job", job.Key.Job, "err", err)
	}
}

// forget drops the note.
func (p *Pusher) forget(job Job) {
	if err := os.Remove(p.entry(job.Key.Job)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.cfg.Log.Warn("the note of a checkpoint that has been copied stays", "job", job.Key.Job, "err", err)
	}
}

// left gives what a former pusher had not done.
func (p *Pusher) left() []Job {
	entries, err := os.ReadDir(p.cfg.StateDir)
	if err != nil {
		p.cfg.Log.Warn("what is still to be copied to the object store cannot be read", "err", err)
	}
	var out []Job
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(p.cfg.StateDir, e.Name()))
		var job Job
		if err == nil {
			err = json.Unmarshal(data, &job)
		}
		if err != nil || job.Dir == "" || job.Name == "" {
			p.cfg.Log.Warn("a note of what is to be copied cannot be read", "file", e.Name(), "err", err)
			continue
		}
		out = append(out, job)
	}
	return out
}
