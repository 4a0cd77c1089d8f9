package trace

import (
	"errors"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// UnknownType is the GPU type of nodes whose file names none.
const UnknownType = "gpu"

// openCSV opens a file of jobs in our own format: CSV with a heading that names at least job_id, submit_s, duration_s
// and gpus, and perhaps gpu_milli, gpu_type (several by |), cpu and mem_mib (of the whole job), user and queue.
func openCSV(f *text, skipBad bool) (Source, error) {
	return ownRows(f, skipBad, "job_id", "submit_s", "duration_s", "gpus")
}

// ganglineColumns are those that gangline export writes, in its order.
var ganglineColumns = columns{ //nolint:gochecknoglobals // table
	"job_id", "submit_s", "duration_s", "gpus", "gpu_milli", "gpu_type", "cpu", "mem_mib", "user", "queue",
}

// openGangline opens what gangline export wrote: all of the columns must be there.
func openGangline(f *text, skipBad bool) (Source, error) {
	return ownRows(f, skipBad, ganglineColumns...)
}

func ownRows(f *text, skipBad bool, needed ...string) (Source, error) {
	t, err := newTable(f, needed...)
	if err != nil {
		return nil, err
	}
	own := ownColumns(t)
	return &rows{name: t.name, skip: skipBad, close: t.Close, parse: func(j *Job) error {
		if err := t.next(); err != nil {
			return err
		}
		return own.job(j)
	}}, nil
}

// own reads jobs of tables in our own format, of which it keeps the columns.
type own struct {
	*table
	id, submit, length, gpus, share, kind, cpu, mem, user, queue *column
}

func ownColumns(t *table) *own {
	return &own{
		table: t, id: t.column("job_id"), submit: t.column("submit_s"), length: t.column("duration_s"),
		gpus: t.column("gpus"), share: t.column("gpu_milli"), kind: t.column("gpu_type"), cpu: t.column("cpu"), mem: t.column("mem_mib"),
		user: t.column("user"), queue: t.column("queue"),
	}
}

// job reads the row as a job with its times.
func (t *own) job(j *Job) error {
	submit, err1 := t.submit.seconds(0)
	length, err2 := t.length.seconds(0)
	err3 := t.request(j)
	if err1 != nil || err2 != nil || err3 != nil {
		return errors.Join(err1, err2, err3)
	}
	j.Submit, j.Length, j.Guess = submit, length, length
	return nil
}

// request reads what a row asks for, and sets the job's times to none.
func (t *own) request(j *Job) error {
	gpus, err1 := t.gpus.whole(cluster.MaxGPUs)
	share, err2 := t.share.whole(milli)
	cpu, err3 := t.cpu.scaled(MaxCPUs, milli)
	mem, err4 := t.mem.scaled(MaxMiB, mebibyte)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return errors.Join(err1, err2, err3, err4)
	}
	if share == 0 && gpus > 0 {
		share = milli // not given
	}
	if share < milli && gpus > 1 {
		return t.share.wrong("1000: a share is of one GPU")
	}
	*j = Job{
		ID: strings.Clone(t.id.text()), GPUs: int32(gpus), Milli: int32(share), CPU: cpu, Mem: mem, //nolint:gosec // bounded above
		User: t.texts.keep(t.user.text()), Queue: t.texts.keep(t.queue.text()),
	}
	if j.Queue == "" {
		j.Queue = cluster.DefaultQueue
	}
	if types := t.kind.text(); types != "" {
		j.Types = t.texts.list(types)
	}
	return nil
}

// ReadEstimates reads a file of guessed lengths: CSV with the columns job_id and est_s. Guesses may be negative: the
// published estimators are that wrong, and an order only compares them. Errors are as for ReadNodes.
func ReadEstimates(path string) (map[string]time.Duration, error) {
	t, err := openTable(path, "job_id", "est_s")
	if err != nil {
		return nil, err
	}
	estimates := map[string]time.Duration{}
	err = each(t, func() error {
		d, err := t.column("est_s").seconds(-MaxSeconds)
		estimates[strings.Clone(t.value("job_id"))] = d
		return err
	})
	if err = errors.Join(err, t.Close()); err != nil {
		return nil, err
	}
	return estimates, nil
}

// neverRan is the status of a job that was still waiting when its trace ended: how long it would have run is not known.
const neverRan = "Pending"

// ReadOrder reads an order of arrivals: CSV with the columns job_id and gpus, and perhaps those of jobs. Submission times
// are not read. Lengths are, if they are known: not of a job whose column status says that it never ran. Jobs without
// GPUs are kept: they take CPUs and memory. Errors are as for ReadNodes.
func ReadOrder(path string) ([]Job, error) {
	t, err := openTable(path, "job_id", "gpus")
	if err != nil {
		return nil, err
	}
	var jobs []Job
	own := ownColumns(t)
	err = each(t, func() error {
		var j Job
		err := own.request(&j)
		if err == nil && t.value("duration_s") != "" && t.value("status") != neverRan {
			j.Length, err = t.column("duration_s").seconds(0)
		}
		if err == nil {
			jobs = append(jobs, j)
		}
		return err
	})
	if err = errors.Join(err, t.Close()); err != nil {
		return nil, err
	}
	return jobs, nil
}
