package trace

import (
	"encoding/csv"
	"fmt"
	"math"
	"slices"
	"strconv"
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
	if headingOf(f.firstLine(), ",").any(paiColumns...) {
		return openPublished(f, opt, (*table).paiJob, paiColumns[:len(paiColumns)-1]...)
	}
	return tableJobs(headless(f, paiColumns), opt, (*table).paiJob), nil
}

// headless makes a table of a file that has these columns and no heading.
func headless(f *text, columns []string) *table {
	rows := csv.NewReader(f)
	rows.ReuseRecord = true
	rows.FieldsPerRecord = len(columns)
	t := &table{text: f, rows: rows, width: len(columns), at: map[string]int{}}
	for i, c := range columns {
		t.at[c] = i
	}
	return t
}

// paiJob reads a task, such as the workers of a job, as a job of its own: most jobs have one task. It is submitted when
// it was launched, as the table does not tell when it was submitted. The GPU type is what it got, not what it asked for,
// and is not read.
func (t *table) paiJob(*time.Location) (Job, error) {
	if s := t.value("status"); s == "Running" || s == "Waiting" || t.value("start_time") == "" || t.value("end_time") == "" {
		return Job{}, errPassed
	}
	n, err := t.scaled("inst_num", cluster.MaxGPUs, 1)
	if err != nil {
		return Job{}, err
	}
	n = max(n, 1)
	share, err := t.scaled("plan_gpu", cluster.MaxGPUs*100/float64(n), milli)
	if err != nil {
		return Job{}, err
	}
	cpu, err := t.scaled("plan_cpu", MaxCPUs*100/float64(n), milli)
	if err != nil {
		return Job{}, err
	}
	mem, err := t.scaled("plan_mem", MaxMiB/1024/float64(n), 1024*mebibyte)
	if err != nil {
		return Job{}, err
	}
	submit, err := t.seconds("start_time", 0)
	if err != nil {
		return Job{}, err
	}
	end, err := t.seconds("end_time", 0)
	switch {
	case err != nil:
		return Job{}, err
	case end < submit:
		return Job{}, t.wrong("end_time", "at or after start_time")
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
