package trace

import (
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// openPublished reads a published file of comma-separated columns, a job by each row.
func openPublished(f *text, opt *Options, job func(*table, *time.Location) (Job, error), columns ...string) (Source, error) {
	t, err := newTable(f, columns...)
	if err != nil {
		return nil, err
	}
	return tableJobs(t, opt, job), nil
}

func tableJobs(t *table, opt *Options, job func(*table, *time.Location) (Job, error)) Source {
	t.opt = opt
	zone := opt.Zone
	if zone == nil {
		zone = time.UTC
	}
	return &rows{name: t.name, skip: opt.SkipBad, close: t.Close, parse: func(j *Job) (err error) {
		if err = t.next(); err == nil {
			*j, err = job(t, zone)
		}
		return err
	}}
}

// heliosJob reads a row of Helios. A job's queue is its virtual cluster; the column queue is a time.
func (t *table) heliosJob(zone *time.Location) (Job, error) { return t.slurmLike("vc", zone) }

// acmeJob reads a row of Acme, whose jobs have no queue: it is the type of work, such as Pretrain. The memory of a pod
// is not read, as the number of a job's pods is not told.
func (t *table) acmeJob(zone *time.Location) (Job, error) { return t.slurmLike("type", zone) }

// slurmLike reads what Helios and Acme have in common.
func (t *table) slurmLike(queue string, zone *time.Location) (Job, error) {
	if t.value("duration") == "" {
		return Job{}, errPassed // never ran
	}
	gpus, err := t.column("gpu_num").scaled(cluster.MaxGPUs, 1)
	if err != nil {
		return Job{}, err
	}
	cpu, err := t.column("cpu_num").scaled(MaxCPUs, milli)
	if err != nil {
		return Job{}, err
	}
	submit, err := t.column("submit_time").moment(zone)
	if err != nil {
		return Job{}, err
	}
	length, err := t.column("duration").seconds(0)
	if err != nil {
		return Job{}, err
	}
	j := wholeGPUs(gpus)
	j.ID, j.Submit, j.Length, j.Guess, j.CPU = strings.Clone(t.value("job_id")), submit, length, length, cpu
	t.belongs(&j, t.value("user"), t.value(queue))
	return j, nil
}

// openbJob reads a pod. Its queue is its class of service. One that was never scheduled has only waited.
func (t *table) openbJob(*time.Location) (Job, error) {
	if t.value("scheduled_time") == "" || t.value("deletion_time") == "" {
		return Job{}, errPassed
	}
	gpus, err := t.column("num_gpu").scaled(cluster.MaxGPUs, 1)
	if err != nil {
		return Job{}, err
	}
	share, err := t.column("gpu_milli").whole(milli * cluster.MaxNodeGPUs)
	if err != nil {
		return Job{}, err
	}
	var times [3]time.Duration
	for i, c := range []string{"creation_time", "scheduled_time", "deletion_time"} {
		if times[i], err = t.column(c).seconds(0); err != nil {
			return Job{}, err
		}
	}
	cpu, err := t.column("cpu_milli").scaled(MaxCPUs*milli, 1)
	if err != nil {
		return Job{}, err
	}
	mem, err := t.column("memory_mib").scaled(MaxMiB, mebibyte)
	if err != nil {
		return Job{}, err
	}
	if times[2] < times[1] {
		return Job{}, t.column("deletion_time").wrong("at or after scheduled_time")
	}
	j := wholeGPUs(gpus)
	if gpus == 1 && share > 0 && share < milli {
		j.Milli = int32(share) //nolint:gosec // bounded by milli
	}
	j.ID, j.Submit, j.CPU, j.Mem = strings.Clone(t.value("name")), times[0], cpu, mem
	j.Length = times[2] - times[1]
	j.Guess = j.Length
	if types := t.value("gpu_spec"); types != "" {
		j.Types = t.texts.list(types)
	}
	t.belongs(&j, "", t.value("qos"))
	return j, nil
}

// wholeGPUs is a request for a number of GPUs that is within bounds.
func wholeGPUs(n int64) Job {
	j := Job{GPUs: int32(n)} //nolint:gosec // bounded by who calls
	if n > 0 {
		j.Milli = milli
	}
	return j
}

// belongs sets whose job it is.
func (t *table) belongs(j *Job, user, queue string) {
	j.User, j.Queue = t.texts.keep(user), t.texts.keep(queue)
	if j.Queue == "" {
		j.Queue = cluster.DefaultQueue
	}
}

// momentForms are how times of the clock are written, with a zone or without.
var momentForms = []string{ //nolint:gochecknoglobals // table
	"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", time.RFC3339, "2006-01-02T15:04:05Z0700",
}

// moment reads a time of the clock as a time since 1970.
func (c *column) moment(zone *time.Location) (time.Duration, error) {
	at, ok := parseMoment(c.text(), zone)
	if !ok {
		return 0, c.wrong("a time such as 2006-01-02T15:04:05")
	}
	return at, nil
}

// parseMoment reads a time of the clock, or seconds since 1970, between then and 2200: far from overflow.
func parseMoment(s string, zone *time.Location) (time.Duration, bool) {
	for _, form := range momentForms {
		if at, err := time.ParseInLocation(form, s, zone); err == nil {
			return time.Duration(at.Unix()) * time.Second, at.Year() > 1970 && at.Year() < 2200
		}
	}
	const latest = 7e9 // in 2191
	n, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(n) * time.Second, err == nil && n >= 0 && n < latest
}
