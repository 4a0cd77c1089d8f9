package replay

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of what a file may say. They keep virtual times far from overflow.
const (
	maxSeconds   = 1e9 // thirty years
	maxCPUs      = 1 << 20
	maxMiB       = 1 << 30
	mebibyte     = 1 << 20
	milli        = 1000
	unknownType  = "gpu"
	gzipMagic    = "\x1f\x8b"
	maxBadToTell = 20
)

// table reads a CSV file with a heading, gzipped or not, and finds its columns by name.
type table struct {
	name  string // of the file, for errors
	rows  *csv.Reader
	at    map[string]int // column by name
	row   []string
	skip  bool // malformed rows are counted, not told
	bad   int
	tells []error
}

// openTable opens a file. The columns named must be there; others may be.
func openTable(path string, skip bool, columns ...string) (*table, func() error, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the user names the file
	if err != nil {
		return nil, nil, fmt.Errorf("read a trace: %w", err)
	}
	t, err := newTable(path, f, skip, columns...)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return t, f.Close, nil
}

func newTable(name string, r io.Reader, skip bool, columns ...string) (*table, error) {
	buf := bufio.NewReaderSize(r, 1<<16)
	if head, _ := buf.Peek(len(gzipMagic)); string(head) == gzipMagic {
		z, err := gzip.NewReader(buf)
		if err != nil {
			return nil, fmt.Errorf("%s: not a whole gzip file: %w", name, err)
		}
		buf = bufio.NewReaderSize(z, 1<<16)
	}
	t := &table{name: name, rows: csv.NewReader(buf), at: map[string]int{}, skip: skip}
	t.rows.ReuseRecord = true
	heading, err := t.rows.Read()
	if err != nil {
		return nil, fmt.Errorf("%s: has no heading: the first line must name its columns (%s): %w", name, strings.Join(columns, ","), err)
	}
	for i, c := range heading {
		t.at[strings.TrimSpace(c)] = i
	}
	for _, c := range columns {
		if _, ok := t.at[c]; !ok {
			return nil, fmt.Errorf("%s: line 1: has no column %s: needed are %s", name, c, strings.Join(columns, ","))
		}
	}
	return t, nil
}

// each calls f for every row. Malformed rows are counted if t.skip, else all of them (up to a bound) are told at once.
func (t *table) each(f func() error) error {
	for {
		row, err := t.rows.Read()
		var shape *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return errors.Join(t.tells...)
		case errors.As(err, &shape) && errors.Is(err, csv.ErrFieldCount):
			err = fmt.Errorf("%s:%d: has %d columns, the heading has %d", t.name, shape.Line, len(row), len(t.at))
		case err != nil:
			return fmt.Errorf("%s: %w", t.name, err) // the rest cannot be read
		default:
			t.row = row
			err = f()
		}
		if err == nil {
			continue
		}
		if t.bad++; !t.skip {
			t.tells = append(t.tells, err)
		}
		if len(t.tells) >= maxBadToTell {
			return errors.Join(append(t.tells, fmt.Errorf("%s: and perhaps more: --skip-bad passes over such rows and counts them", t.name))...)
		}
	}
}

// text is the value of a column, or "" if the file has no such column.
func (t *table) text(column string) string {
	i, ok := t.at[column]
	if !ok {
		return ""
	}
	return t.row[i]
}

// wrong says what is wrong with a value, and where it is.
func (t *table) wrong(column, want string) error {
	line, col := t.rows.FieldPos(t.at[column])
	return fmt.Errorf("%s:%d:%d: column %s is %q, not %s", t.name, line, col, column, t.row[t.at[column]], want)
}

// whole reads a whole number in 0..most; an empty value is 0.
func (t *table) whole(column string, most int64) (int64, error) {
	s := t.text(column)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, t.wrong(column, fmt.Sprintf("a whole number in 0..%d", most))
	}
	return n, nil
}

// scaled reads a number in 0..most and returns it in units of 1/scale, rounded up; an empty value is 0.
func (t *table) scaled(column string, most float64, scale int64) (int64, error) {
	s := t.text(column)
	if s == "" {
		return 0, nil
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || !(x >= 0 && x <= most) {
		return 0, t.wrong(column, fmt.Sprintf("a number in 0..%g", most))
	}
	return int64(math.Ceil(x*float64(scale) - 1e-6)), nil
}

// seconds reads a time of at least least; an empty value is refused.
func (t *table) seconds(column string, least float64) (time.Duration, error) {
	s := t.text(column)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && float64(n) >= least && n <= maxSeconds {
		return time.Duration(n) * time.Second, nil
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || !(x >= least && x <= maxSeconds) {
		return 0, t.wrong(column, fmt.Sprintf("a number of seconds in %g..%g", least, float64(maxSeconds)))
	}
	return time.Duration(math.Round(x * float64(time.Second))), nil
}

// ReadJobs reads a file of jobs, gzipped or not: CSV with a heading that names at least job_id, submit_s, duration_s
// and gpus, and perhaps gpu_milli, gpu_type (several by |), cpu and mem_mib (of the whole job), user and queue. Rows in
// any order are sorted by submission. A malformed row is an error that says where and what is expected, or is counted
// as the second result if skipBad.
func ReadJobs(path string, skipBad bool) (jobs []Job, skipped int, err error) {
	t, closeFile, err := openTable(path, skipBad, "job_id", "submit_s", "duration_s", "gpus")
	if err != nil {
		return nil, 0, err
	}
	texts := map[string]string{} // queues and users are few: one string each
	err = t.each(func() error {
		j, err := t.job(texts)
		if err == nil {
			jobs = append(jobs, j)
		}
		return err
	})
	if err = errors.Join(err, closeFile()); err != nil {
		return nil, 0, err
	}
	inOrder(jobs)
	return jobs, t.bad, nil
}

// job reads the row as a job with its times.
func (t *table) job(texts map[string]string) (Job, error) {
	submit, err1 := t.seconds("submit_s", 0)
	length, err2 := t.seconds("duration_s", 0)
	j, err3 := t.request(texts)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Job{}, err
	}
	j.Submit, j.Length, j.Guess = submit, length, length
	return j, nil
}

// request reads what a row asks for.
func (t *table) request(texts map[string]string) (Job, error) {
	gpus, err1 := t.whole("gpus", cluster.MaxGPUs)
	share, err2 := t.whole("gpu_milli", milli)
	cpu, err3 := t.scaled("cpu", maxCPUs, milli)
	mem, err4 := t.scaled("mem_mib", maxMiB, mebibyte)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return Job{}, err
	}
	if share == 0 && gpus > 0 {
		share = milli // not given
	}
	if share < milli && gpus > 1 {
		return Job{}, t.wrong("gpu_milli", "1000: a share is of one GPU")
	}
	j := Job{
		ID: strings.Clone(t.text("job_id")), GPUs: int32(gpus), Milli: int32(share), CPU: cpu, Mem: mem, //nolint:gosec // bounded above
		User: intern(texts, t.text("user")), Queue: intern(texts, t.text("queue")),
	}
	if j.Queue == "" {
		j.Queue = cluster.DefaultQueue
	}
	if types := t.text("gpu_type"); types != "" {
		j.Types = strings.Split(intern(texts, types), "|")
	}
	return j, nil
}

// intern returns the one copy of a string that is not part of a reader's buffer.
func intern(texts map[string]string, s string) string {
	if known, ok := texts[s]; ok {
		return known
	}
	s = strings.Clone(s)
	texts[s] = s
	return s
}

// ReadNodes reads a file of nodes: CSV with the columns node and gpus, and perhaps gpu_type, cpu, mem_mib and rack.
// Nodes without GPUs are left out. Errors are as for ReadJobs.
func ReadNodes(path string) ([]Node, error) {
	t, closeFile, err := openTable(path, false, "node", "gpus")
	if err != nil {
		return nil, err
	}
	var nodes []Node
	texts := map[string]string{}
	err = t.each(func() error {
		gpus, err1 := t.whole("gpus", cluster.MaxNodeGPUs)
		cpu, err2 := t.scaled("cpu", maxCPUs, milli)
		mem, err3 := t.scaled("mem_mib", maxMiB, mebibyte)
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		n := Node{
			Name: strings.Clone(t.text("node")), GPUs: int32(gpus), Type: intern(texts, t.text("gpu_type")), //nolint:gosec // bounded above
			CPU: cpu, Mem: mem, Rack: intern(texts, t.text("rack")),
		}
		if n.Type == "" {
			n.Type = unknownType
		}
		if n.GPUs > 0 {
			nodes = append(nodes, n)
		}
		return nil
	})
	if err = errors.Join(err, closeFile()); err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%s: names no node with a GPU: nothing could run", path)
	}
	return nodes, nil
}

// ReadEstimates reads a file of guessed lengths: CSV with the columns job_id and est_s. Guesses may be negative: the
// published estimators are that wrong, and an order only compares them. Errors are as for ReadJobs.
func ReadEstimates(path string) (map[string]time.Duration, error) {
	t, closeFile, err := openTable(path, false, "job_id", "est_s")
	if err != nil {
		return nil, err
	}
	estimates := map[string]time.Duration{}
	err = t.each(func() error {
		d, err := t.seconds("est_s", -maxSeconds)
		estimates[strings.Clone(t.text("job_id"))] = d
		return err
	})
	if err = errors.Join(err, closeFile()); err != nil {
		return nil, err
	}
	return estimates, nil
}

// ReadOrder reads an order of arrivals: CSV with the columns job_id and gpus, and perhaps those of ReadJobs, whose times
// are not read. Jobs without GPUs are kept: they take CPUs and memory.
func ReadOrder(path string) ([]Job, error) {
	t, closeFile, err := openTable(path, false, "job_id", "gpus")
	if err != nil {
		return nil, err
	}
	var jobs []Job
	texts := map[string]string{}
	err = t.each(func() error {
		j, err := t.request(texts)
		if err == nil {
			jobs = append(jobs, j)
		}
		return err
	})
	if err = errors.Join(err, closeFile()); err != nil {
		return nil, err
	}
	return jobs, nil
}
