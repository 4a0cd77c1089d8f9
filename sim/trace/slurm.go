package trace

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// bars reads the rows of sacct -P: columns between | (or what its --delimiter names), in which a quote is a quote.
type bars struct {
	from  *text
	sep   string
	row   []string
	line  int
	width int // columns of the heading
}

// Read implements rowReader. A | at the end of all rows, as sacct -p writes, makes no column.
func (b *bars) Read() ([]string, error) {
	for {
		s, err := b.from.ReadString('\n')
		if s == "" && err != nil {
			return nil, err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		b.line++
		if s = strings.TrimRight(s, "\r\n"); s != "" {
			b.row = strings.Split(s, b.sep)
			break
		}
	}
	if b.width == 0 {
		if b.row[len(b.row)-1] == "" {
			b.row = b.row[:len(b.row)-1]
		}
		b.width = len(b.row)
	} else if len(b.row) == b.width+1 && b.row[b.width] == "" {
		b.row = b.row[:b.width]
	}
	if len(b.row) != b.width {
		return b.row, &csv.ParseError{StartLine: b.line, Line: b.line, Err: csv.ErrFieldCount}
	}
	return b.row, nil
}

// FieldPos implements rowReader.
func (b *bars) FieldPos(field int) (line, column int) {
	column = 1
	for _, v := range b.row[:field] {
		column += len(v) + len(b.sep)
	}
	return b.line, column
}

// openSacct reads what sacct -P wrote: JobIDRaw or JobID, Submit, AllocTRES or ReqTRES, and how long a job ran by
// ElapsedRaw, Elapsed, or Start and End; perhaps User, Partition, Account, QOS, Timelimit and State.
func openSacct(f *text, opt *Options) (Source, error) {
	sep := sacctSeparator(f.firstLine())
	if sep == "" {
		sep = "|"
	}
	t, err := headed(f, &bars{from: f, sep: sep}, "Submit")
	if err != nil {
		return nil, err
	}
	switch {
	case !t.has("JobIDRaw") && !t.has("JobID"):
		err = t.need([]string{"JobIDRaw", "Submit"})
	case !t.has("AllocTRES") && !t.has("ReqTRES"):
		err = t.need([]string{"AllocTRES"})
	case sep == "," && (t.has("AllocTRES") || t.has("ReqTRES")):
		return nil, fmt.Errorf("%s: line 1: columns are separated by commas, which AllocTRES and ReqTRES have within: write it with sacct -P", f.name)
	case opt.Queue != "" && !t.has(opt.Queue):
		err = t.need([]string{opt.Queue})
	case opt.Limits && !t.has("Timelimit") && !t.has("TimelimitRaw"):
		err = t.need([]string{"Timelimit"})
	case !t.has("ElapsedRaw") && !t.has("Elapsed") && !(t.has("Start") && t.has("End")):
		err = t.need([]string{"ElapsedRaw"})
	}
	if err != nil {
		return nil, fmt.Errorf("%w; sacct -a -P -X --format=JobIDRaw,User,Account,Partition,Submit,Start,End,ElapsedRaw,State,ReqTRES,AllocTRES gives all", err)
	}
	src := tableJobs(t, opt, (*table).sacctJob).(*rows)
	one := src.parse
	src.parse = func(j *Job) error {
		for {
			if err := one(j); !errors.Is(err, errStep) {
				return err
			}
		}
	}
	return src, nil
}

// sacctSeparators are what may stand between the columns of sacct -P: its own, and what people choose with --delimiter.
var sacctSeparators = []string{"|", ";", "\t", "^", "~", ","} //nolint:gochecknoglobals // table

// sacctSeparator tells by its heading what separates the columns of a file that sacct -P wrote; empty: it is none.
func sacctSeparator(heading string) string {
	for _, sep := range sacctSeparators {
		if has := headingOf(heading, sep); has.any("JobID", "JobIDRaw") && has.all("Submit") {
			return sep
		}
	}
	return ""
}

// errStep is a step of a job, such as 123.batch, which is no job.
var errStep = errors.New("a step of a job")

// sacctJob reads a row of sacct. Its queue is what the column of Options.Queue says, or the partition, or else the account.
// Members of arrays (123_4) and parts of heterogeneous jobs (123+1) are jobs.
func (t *table) sacctJob(zone *time.Location) (Job, error) {
	id := t.value("JobIDRaw")
	if id == "" {
		id = t.value("JobID")
	}
	switch {
	case id == "":
		return Job{}, badRow{fmt.Errorf("%s:%d: has no job id", t.name, t.line())}
	case strings.Contains(id, "."):
		return Job{}, errStep
	}
	state, _, _ := strings.Cut(t.value("State"), " ") // "CANCELLED by 1000"
	for _, open := range []string{"PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING"} {
		if state == open {
			return Job{}, errPassed // how long it will have run is not known
		}
	}
	for _, c := range []string{"Start", "End"} {
		if t.has(c) && noTime(t.value(c)) {
			return Job{}, errPassed
		}
	}
	submit, err := t.column("Submit").moment(zone)
	if err != nil {
		return Job{}, err
	}
	length, err := t.elapsed(zone)
	if err != nil {
		return Job{}, err
	}
	asked, err := t.column("ReqTRES").tres()
	if err != nil {
		return Job{}, err
	}
	got, err := t.column("AllocTRES").tres()
	if err != nil {
		return Job{}, err
	}
	if t.has("AllocTRES") && t.value("AllocTRES") == "" && length == 0 {
		return Job{}, errPassed // ended before it started
	}
	if got == (tres{}) {
		got = asked
	}
	j := wholeGPUs(got.gpus)
	j.ID, j.Submit, j.Length, j.Guess, j.CPU, j.Mem = strings.Clone(id), submit, length, length, got.cpu, got.mem
	if asked.kind != "" { // what it got, if it asked for none, need not be what it would take
		j.Types = t.texts.list(asked.kind)
	}
	if t.opt.Limits {
		if j.Guess, err = t.limit(); err != nil {
			return Job{}, err
		}
	}
	column := t.opt.Queue
	if column == "" {
		column = "Partition"
	}
	queue, _, _ := strings.Cut(t.value(column), ",")
	if queue == "" {
		queue = t.value("Account")
	}
	t.belongs(&j, t.value("User"), queue)
	return j, nil
}

// line is that of the row.
func (t *table) line() int {
	line, _ := t.rows.FieldPos(0)
	return line
}

// noTime tells of a time that Slurm does not know.
func noTime(s string) bool { return s == "" || s == "Unknown" || s == "None" || s == "N/A" }

// elapsed is how long a job ran.
func (t *table) elapsed(zone *time.Location) (time.Duration, error) {
	if t.has("ElapsedRaw") {
		return t.column("ElapsedRaw").seconds(0)
	}
	if t.has("Elapsed") {
		d, ok := parseElapsed(t.value("Elapsed"))
		if !ok {
			return 0, t.column("Elapsed").wrong("a time such as 1-02:03:04 (days-hours:minutes:seconds)")
		}
		return d, nil
	}
	start, err := t.column("Start").moment(zone)
	if err != nil {
		return 0, err
	}
	end, err := t.column("End").moment(zone)
	if err != nil {
		return 0, err
	}
	if end < start || end-start > MaxSeconds*time.Second {
		return 0, t.column("End").wrong("a time after Start")
	}
	return end - start, nil
}

// limit is a job's time limit, or the longest time there is if it had none.
func (t *table) limit() (time.Duration, error) {
	if v := t.value("TimelimitRaw"); v != "" {
		if minutes, err := strconv.ParseInt(v, 10, 64); err == nil && minutes >= 0 && minutes*60 <= MaxSeconds {
			return time.Duration(minutes) * time.Minute, nil
		}
	}
	column := "Timelimit"
	if !t.has(column) {
		column = "TimelimitRaw"
	}
	v := t.value(column)
	switch v {
	case "UNLIMITED", "Partition_Limit", "INVALID", "":
		return MaxSeconds * time.Second, nil
	}
	d, ok := parseElapsed(v)
	if !ok {
		return 0, t.column(column).wrong("a time limit such as 1-02:03:04 (days-hours:minutes:seconds), or UNLIMITED")
	}
	return d, nil
}

// parseElapsed reads [days-][hours:]minutes:seconds.
func parseElapsed(s string) (time.Duration, bool) {
	days, clock, has := strings.Cut(s, "-")
	if !has {
		days, clock = "0", s
	}
	total, err := strconv.ParseUint(days, 10, 16)
	parts := strings.Split(clock, ":")
	if err != nil || len(parts) < 2 || len(parts) > 3 {
		return 0, false
	}
	total *= 24 * 3600
	unit := uint64(1)
	for i := len(parts) - 1; i >= 0; i-- {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil {
			return 0, false
		}
		total += n * unit
		unit *= 60
	}
	return time.Duration(total) * time.Second, total <= MaxSeconds //nolint:gosec // some 6e9 at most
}

// tres is what Slurm calls trackable resources.
type tres struct {
	gpus     int64
	kind     string // of the GPUs; empty: not told, or several
	cpu, mem int64  // thousandths, bytes
}

// tres reads a list such as cpu=8,mem=64G,node=1,gres/gpu=2,gres/gpu:a100=2. The typed entries are part of gres/gpu.
func (c *column) tres() (tres, error) {
	var r tres
	typed := int64(0)
	s := c.text()
	if s == "" {
		return r, nil
	}
	for _, one := range strings.Split(s, ",") {
		key, value, ok := strings.Cut(one, "=")
		if !ok {
			return r, c.wrong("resources such as cpu=8,mem=64G,gres/gpu=2")
		}
		kind, isTyped := strings.CutPrefix(key, "gres/gpu:")
		var n float64
		switch {
		case key == "mem":
			n, ok = sized(value)
			ok = ok && n <= MaxMiB
			r.mem = int64(n * mebibyte)
		case key == "cpu" || key == "gres/gpu" || isTyped:
			var err error
			n, err = strconv.ParseFloat(value, 64)
			ok = err == nil && n >= 0 && n <= MaxCPUs && n == math.Trunc(n)
		}
		switch {
		case !ok || (key == "gres/gpu" || isTyped) && n > cluster.MaxGPUs:
			return r, c.wrong("resources such as cpu=8,mem=64G,gres/gpu=2: " + brief(one) + " is none")
		case key == "cpu":
			r.cpu = int64(n * milli)
		case key == "gres/gpu":
			r.gpus = int64(n)
		case isTyped && typed > 0:
			r.kind = ""
			typed += int64(n)
		case isTyped:
			r.kind = kind
			typed = int64(n)
		}
	}
	if r.gpus = max(r.gpus, typed); r.gpus > cluster.MaxGPUs {
		return r, c.wrong(fmt.Sprintf("at most %d GPUs", cluster.MaxGPUs))
	}
	return r, nil
}

// sized reads an amount of memory in MiB, as Slurm writes it: 64G, 1.5T, or a bare number of MiB.
func sized(s string) (mib float64, ok bool) {
	unit := 1.0
	if s != "" {
		switch s[len(s)-1] {
		case 'K':
			unit = 1.0 / 1024
		case 'M':
		case 'G':
			unit = 1024
		case 'T':
			unit = 1024 * 1024
		case 'P':
			unit = 1024 * 1024 * 1024
		}
	}
	mib, err := strconv.ParseFloat(strings.TrimRight(s, "KMGTP"), 64)
	return mib * unit, err == nil && mib >= 0
}
