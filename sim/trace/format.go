package trace

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Format is how a file of jobs is written.
type Format string

// Formats of files of jobs, and where they are described.
const (
	FormatAuto     Format = "auto"     // told by how the file begins
	FormatCSV      Format = "csv"      // our own
	FormatGangline Format = "gangline" // what gangline export writes: the same columns, all of them
	FormatSacct    Format = "sacct"    // Slurm's sacct -P (slurm.schedmd.com/sacct.html)
	FormatPhilly   Format = "philly"   // Microsoft's Philly: cluster_job_log (github.com/msr-fiddle/philly-traces)
	FormatHelios   Format = "helios"   // SenseTime's Helios: cluster_log.csv (github.com/S-Lab-System-Group/HeliosData)
	FormatAcme     Format = "acme"     // Shanghai AI Lab's Acme: trace_seren.csv, trace_kalos.csv (github.com/InternLM/AcmeTrace)
	FormatPAI      Format = "pai"      // Alibaba's PAI of 2020: pai_task_table (github.com/alibaba/clusterdata)
	FormatOpenb    Format = "openb"    // Alibaba's pods of 2023: openb_pod_list_*.csv (github.com/alibaba/clusterdata)
)

// Formats are all of them.
func Formats() []Format {
	return []Format{FormatAuto, FormatCSV, FormatGangline, FormatSacct, FormatPhilly, FormatHelios, FormatAcme, FormatPAI, FormatOpenb}
}

// FormatsText lists the formats for people.
func FormatsText() string {
	var names []string
	for _, f := range Formats() {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

// ParseFormat reads the name of a format.
func ParseFormat(s string) (Format, error) {
	if f := Format(s); slices.Contains(Formats(), f) {
		return f, nil
	}
	return "", fmt.Errorf("%q is not one of %s", s, FormatsText())
}

// firstLine is how the file begins, up to a bound, without taking it.
func (t *text) firstLine() string {
	head, _ := t.Peek(1 << 14) // what can be read of it is enough
	line, _, _ := bytes.Cut(head, []byte{'\n'})
	return strings.TrimSuffix(string(line), "\r")
}

// jobFormat tells the format of a file of jobs by its heading. A heading of none is taken for our own, whose reader
// says which columns it needs.
func (t *text) jobFormat() (Format, error) {
	head := t.firstLine()
	if strings.HasPrefix(head, "[") || strings.HasPrefix(head, "{") {
		return FormatPhilly, nil
	}
	if sacctSeparator(head) != "" {
		return FormatSacct, nil
	}
	if strings.Contains(head, "|") {
		if headingOf(head, "|").any("JobID", "JobIDRaw") {
			return FormatSacct, nil // which lacks a column, as its reader says
		}
		return "", fmt.Errorf("%s: line 1: columns are separated by |, but it is no heading of sacct -P with JobID or JobIDRaw: do not give sacct --noheader", t.name)
	}
	has := headingOf(head, ",")
	switch {
	case slices.Equal(has, ganglineColumns):
		return FormatGangline, nil
	case has.all("job_id", "submit_s"):
	case has.all("job_id", "vc", "gpu_num", "submit_time"):
		return FormatHelios, nil
	case has.all("job_id", "type", "gpu_num", "submit_time"):
		return FormatAcme, nil
	case has.all("name", "num_gpu", "creation_time"):
		return FormatOpenb, nil
	case has.all("job_name", "task_name", "plan_gpu"), len(has) == len(paiColumns) && slices.Contains(paiStates, has[3]):
		return FormatPAI, nil
	}
	return FormatCSV, nil
}

// FormatOf tells the format of a file of jobs by how it begins.
func FormatOf(path string) (Format, error) {
	f, err := openText(path, nil)
	if err != nil {
		return "", err
	}
	format, err := f.jobFormat()
	return format, errors.Join(err, f.Close())
}

// columns are the names of a heading.
type columns []string

func headingOf(heading, separator string) columns {
	c := columns(strings.Split(heading, separator))
	for i := range c {
		c[i] = strings.TrimSpace(c[i])
	}
	return c
}

func (c columns) all(names ...string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(c, n) })
}

func (c columns) any(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(c, n) })
}

// openFormat reads a file's heading. It does not close the file on an error.
func openFormat(f *text, format Format, opt *Options) (Source, error) {
	switch format {
	case FormatCSV:
		return openCSV(f, opt.SkipBad)
	case FormatGangline:
		return openGangline(f, opt.SkipBad)
	case FormatSacct:
		return openSacct(f, opt)
	case FormatPhilly:
		return openPhilly(f, opt)
	case FormatHelios:
		return openPublished(f, opt, (*table).heliosJob, "job_id", "vc", "gpu_num", "submit_time", "duration")
	case FormatAcme:
		return openPublished(f, opt, (*table).acmeJob, "job_id", "gpu_num", "type", "submit_time", "duration")
	case FormatPAI:
		return openPAI(f, opt)
	case FormatOpenb:
		return openPublished(f, opt, (*table).openbJob, "name", "num_gpu", "gpu_milli", "creation_time", "deletion_time", "scheduled_time")
	case FormatAuto:
	}
	return nil, fmt.Errorf("%s: format %q is not one of %s", f.name, format, FormatsText())
}
