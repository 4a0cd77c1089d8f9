package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// phillyJob is an entry of Philly's cluster_job_log, as far as it is read.
type phillyJob struct {
	ID        string `json:"jobid"`
	VC        string `json:"vc"`
	User      string `json:"user"`
	Submitted string `json:"submitted_time"`
	Attempts  []struct {
		Start  string `json:"start_time"`
		End    string `json:"end_time"`
		Detail []struct {
			GPUs []string `json:"gpus"`
		} `json:"detail"`
	} `json:"attempts"`
}

// philly reads a JSON list of jobs, one at a time.
type philly struct {
	*text
	list  *json.Decoder
	zone  *time.Location
	texts names
	read  int // entries
}

func openPhilly(f *text, opt *Options) (Source, error) {
	p := &philly{text: f, list: json.NewDecoder(f), zone: opt.Zone}
	if p.zone == nil {
		p.zone = time.UTC
	}
	if open, err := p.list.Token(); err != nil || open != json.Delim('[') {
		return nil, fmt.Errorf("%s: is no JSON list of jobs, as cluster_job_log is: it must begin with [", f.name)
	}
	return &rows{name: f.name, skip: opt.SkipBad, close: f.Close, parse: p.next}, nil
}

// next reads an entry.
func (p *philly) next(j *Job) error {
	p.begin()
	if !p.list.More() {
		end, err := p.list.Token()
		if end == json.Delim(']') {
			return io.EOF
		}
		return fmt.Errorf("%s: after entry %d: the list does not end with ]: get the whole of the file (%w)", p.name, p.read, err)
	}
	p.read++
	var entry phillyJob
	err := p.list.Decode(&entry)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		return badRow{fmt.Errorf("%s: entry %d, before byte %d: %s is a %s, not a %s", p.name, p.read, p.list.InputOffset(), kind.Field, kind.Value, kind.Type)}
	case err != nil:
		return fmt.Errorf("%s: entry %d, after byte %d: is not JSON: %w", p.name, p.read, p.list.InputOffset(), err)
	}
	*j, err = p.job(&entry)
	return err
}

// job makes a job of an entry: it asks for the GPUs of its first attempt, and its length is that of all attempts, as
// one that is tried again begins anew.
func (p *philly) job(entry *phillyJob) (Job, error) {
	gpus := 0
	length := time.Duration(0)
	ran := false
	for i := range entry.Attempts {
		a := &entry.Attempts[i]
		if i == 0 {
			for _, d := range a.Detail {
				gpus += len(d.GPUs)
			}
		}
		if noTime(a.End) && i == len(entry.Attempts)-1 {
			return Job{}, errPassed // still running
		}
		if noTime(a.Start) || noTime(a.End) {
			continue // a gap in the log
		}
		start, ok1 := parseMoment(a.Start, p.zone)
		end, ok2 := parseMoment(a.End, p.zone)
		if !ok1 || !ok2 || end < start || length+end-start > MaxSeconds*time.Second {
			return Job{}, p.wrong(entry, fmt.Sprintf("attempt %d from %q to %q", i+1, brief(a.Start), brief(a.End)), "times such as 2006-01-02 15:04:05, one after the other")
		}
		length += end - start
		ran = true
	}
	if !ran {
		return Job{}, errPassed
	}
	submit, ok := parseMoment(entry.Submitted, p.zone)
	switch {
	case !ok:
		return Job{}, p.wrong(entry, fmt.Sprintf("submitted_time %q", brief(entry.Submitted)), "a time such as 2006-01-02 15:04:05")
	case gpus > cluster.MaxGPUs:
		return Job{}, p.wrong(entry, fmt.Sprintf("%d GPUs", gpus), fmt.Sprintf("at most %d", cluster.MaxGPUs))
	}
	j := wholeGPUs(int64(gpus))
	j.ID, j.Submit, j.Length, j.Guess = entry.ID, submit, length, length
	j.User, j.Queue = p.texts.keep(entry.User), p.texts.keep(entry.VC)
	if j.Queue == "" {
		j.Queue = cluster.DefaultQueue
	}
	return j, nil
}

func (p *philly) wrong(entry *phillyJob, what, want string) error {
	return badRow{fmt.Errorf("%s: entry %d, before byte %d (job %s): %s, not %s", p.name, p.read, p.list.InputOffset(), brief(entry.ID), what, want)}
}
