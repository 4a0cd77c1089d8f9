package trace

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// paiColumns are those of pai_task_table, which is published without a heading.
var paiColumns = []string{ //nolint:gochecknoglobals // table
	"job_name", "task_name", "inst_num", "status", "start_time", "end_time", "plan_cpu", "plan_mem", "plan_gpu", "gpu_type",
}

// paiMachineColumns are those of pai_machine_spec, which likewise has no heading.
var paiMachineColumns = []string{"machine", "gpu_type", "cap_cpu", "cap_mem", "cap_gpu"} //nolint:gochecknoglobals // table

// isPAIMachine tells a row of pai_machine_spec: a name, a type and three numbers.
func isPAIMachine(row []string) bool {
	return len(row) == len(paiMachineColumns) && !slices.ContainsFunc(row[2:], func(s string) bool {
		_, err := strconv.ParseFloat(s, 64)
		return err != nil
	})
}

// paiStates are what its column status may be.
var paiStates = []string{"Terminated", "Failed", "Running", "Waiting"} //nolint:gochecknoglobals // table

// openPAI reads PAI's table of tasks, with a heading or as it is published.
func openPAI(f *text, opt *Options) (Source, error) {
	jobs := map[string]paiOwner(nil)
	if opt.PAIJobs != "" {
		var err error
		if jobs, err = readPAIJobs(opt.PAIJobs); err != nil {
			return nil, err
		}
	}
	src, err := openPAITasks(f, opt)
	if err != nil || jobs == nil {
		return src, err
	}
	return &paiJoined{src, jobs}, nil
}

// paiOwner is what the table of jobs tells of a job.
type paiOwner struct {
	user   string
	submit time.Duration
}

// paiJobColumns are those of pai_job_table, which is published without a heading.
var paiJobColumns = []string{"job_name", "inst_id", "user", "status", "start_time", "end_time"} //nolint:gochecknoglobals // table

// readPAIJobs reads who submitted which job, and when: all of it stays in memory, about 150 bytes for each job.
func readPAIJobs(path string) (map[string]paiOwner, error) {
	f, err := openText(path, nil)
	if err != nil {
		return nil, err
	}
	var t *table
	if headingOf(f.firstLine(), ",").any(paiJobColumns...) {
		if t, err = newTable(f, "job_name", "user", "start_time"); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	} else {
		t = headless(f, paiJobColumns)
	}
	out := map[string]paiOwner{}
	err = each(t, func() error {
		o := paiOwner{user: t.texts.keep(t.value("user")), submit: -1}
		if t.value("start_time") != "" {
			var err error
			if o.submit, err = t.column("start_time").seconds(0); err != nil {
				return err
			}
		}
		out[strings.Clone(t.value("job_name"))] = o
		return nil
	})
	return out, errors.Join(err, f.Close())
}

// paiJoined gives tasks the users of their jobs, and the submission times where those come before the launch. The id of
// a task begins with its job's name.
type paiJoined struct {
	Source
	jobs map[string]paiOwner
}

// Next implements Source.
func (p *paiJoined) Next(j *Job) error {
	if err := p.Source.Next(j); err != nil {
		return err
	}
	name, _, _ := strings.Cut(j.ID, "/")
	if o, ok := p.jobs[name]; ok {
		j.User = o.user
		if o.submit >= 0 && o.submit < j.Submit {
			j.Submit = o.submit
		}
	}
	return nil
}

func openPAITasks(f *text, opt *Options) (Source, error) {
	if headingOf(f.firstLine(), ",").any(paiColumns...) {
		return openPublished(f, opt, (*table).paiJob, paiColumns[:len(paiColumns)-1]...)
	}
	return tableJobs(headless(f, paiColumns), opt, (*table).paiJob), nil
}

// headless makes a table of a file that has these columns and no heading.
func headless(f *text, columns []string) *table {
	t := &table{text: f, rows: &commas{from: f, width: len(columns)}}
	t.head(columns)
	return t
}

// paiJob reads a task, such as the workers of a job, as a job of its own: most jobs have one task. It is submitted when
// it was launched, as the table does not tell when it was submitted. The GPU type is what it got, not what it asked for,
// and is not read.
func (t *table) paiJob(*time.Location) (Job, error) {
	if s := t.value("status"); s == "Running" || s == "Waiting" || t.value("start_time") == "" || t.value("end_time") == "" {
		return Job{}, errPassed
	}
	n, err := t.column("inst_num").scaled(cluster.MaxGPUs, 1)
	if err != nil {
		return Job{}, err
	}
	n = max(n, 1)
	share, err := t.column("plan_gpu").scaled(cluster.MaxGPUs*100/float64(n), milli)
	if err != nil {
		return Job{}, err
	}
	cpu, err := t.column("plan_cpu").scaled(MaxCPUs*100/float64(n), milli)
	if err != nil {
		return Job{}, err
	}
	mem, err := t.column("plan_mem").scaled(MaxMiB/1024/float64(n), 1024*mebibyte)
	if err != nil {
		return Job{}, err
	}
	submit, err := t.column("start_time").seconds(0)
	if err != nil {
		return Job{}, err
	}
	end, err := t.column("end_time").seconds(0)
	switch {
	case err != nil:
		return Job{}, err
	case end < submit:
		return Job{}, t.column("end_time").wrong("at or after start_time")
	}
	gpus := float64(share) / milli / 100 * float64(n) // of all instances
	j := wholeGPUs(int64(math.Ceil(gpus - 1e-9)))
	if gpus > 0 && gpus < 1 && n == 1 {
		j.Milli = int32(max(math.Round(gpus*milli), 1))
	}
	j.ID = fmt.Sprintf("%s/%s", t.value("job_name"), t.value("task_name"))
	j.Submit, j.Length, j.Guess, j.CPU, j.Mem = submit, end-submit, end-submit, cpu*n/100, mem*n
	t.belongs(&j, "", "")
	return j, nil
}
