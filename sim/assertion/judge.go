package assertion

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/gangline/gangline/sim/replay"
)

// Ran is a run of a file that was replayed.
type Ran struct {
	Name      string         `json:"name"`
	Report    *replay.Report `json:"report"`
	Collector *Collector     `json:"-"`
}

// Result is what a file's assertions came to. Names are those of `gangline sim test --json`.
type Result struct {
	File     string    `json:"file"`
	Failed   int       `json:"failed"`
	Verdicts []Verdict `json:"assertions"`
	Runs     []*Ran    `json:"runs"`
}

// Verdict is what an assertion came to.
type Verdict struct {
	Name    string   `json:"name"` // what people call it, or its text
	Text    string   `json:"assertion"`
	Line    int      `json:"line"`
	OK      bool     `json:"ok"`
	Found   *float64 `json:"found"`  // times in seconds; null: there was none
	Wanted  *float64 `json:"wanted"` // likewise; what it was compared with
	Problem string   `json:"problem,omitempty"`

	op   string
	unit unit
}

// Judge says which assertions of a file held in its runs, all of which must have been replayed.
func (f *File) Judge(name string, runs []*Ran) *Result {
	out := &Result{File: name, Runs: runs}
	for i := range f.Assertions {
		a := &f.Assertions[i]
		v := Verdict{Name: a.Name, Text: a.Text, Line: a.Line, op: a.Op, unit: a.Left.unit()}
		if v.Name == "" {
			v.Name = a.Text
		}
		value := func(q *Quantity) *float64 {
			for _, r := range runs {
				if r.Name != q.Run {
					continue
				}
				x, problem := r.Collector.value(q, r.Report)
				if problem == "" {
					return &x
				}
				v.Problem = q.String() + ": " + problem
			}
			return nil
		}
		v.Found, v.Wanted = value(&a.Left), &a.Value
		if a.Other != nil {
			if v.Wanted = value(a.Other); v.Wanted != nil {
				times := *v.Wanted * a.Value
				v.Wanted = &times
			}
		}
		v.OK = v.Found != nil && v.Wanted != nil && holds(*v.Found, a.Op, *v.Wanted)
		if !v.OK {
			out.Failed++
		}
		out.Verdicts = append(out.Verdicts, v)
	}
	return out
}

func holds(a float64, op string, b float64) bool {
	switch op {
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	case ">=":
		return a >= b
	case "==":
		return a == b
	default:
		return a != b
	}
}

// text is a value for people.
func (u unit) text(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case u == seconds:
		return replay.TimeText(*v)
	case u == part:
		return strconv.FormatFloat(100**v, 'f', 1, 64) + " %"
	default:
		return strconv.FormatFloat(*v, 'g', 6, 64)
	}
}

// WriteText writes the result for people. It returns the error of writing.
func (r *Result) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\twanted\tfound\t\n", r.File)
	for i := range r.Verdicts {
		v := &r.Verdicts[i]
		said := "ok"
		if !v.OK {
			said = "FAILED"
		}
		if v.Problem != "" {
			said += ": " + v.Problem
		}
		fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\n", v.Name, v.op, v.unit.text(v.Wanted), v.unit.text(v.Found), said)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, run := range r.Runs {
		if x := run.Report; x.Left+x.Refused+x.Failed > 0 {
			fmt.Fprintf(w, "run %s: of %d jobs %d are unfinished, %d were refused, %d failed: waits and completion times are of the %d others\n",
				run.Name, x.Jobs, x.Left, x.Refused, x.Failed, x.Done)
		}
	}
	return nil
}
