package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// printJSON prints one message as one line of JSON, with the field names of the .proto files.
func (a *app) printJSON(m proto.Message) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	// protojson varies its white space on purpose; scripts compare outputs.
	if err := json.Compact(&line, b); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = a.out.Write(line.Bytes())
	return err
}

// table prints rows in aligned columns; the first is the heading.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(r, "\t"), "\t"))
	}
	return t.Flush()
}

func stateName(s schedulerv1.JobState) string {
	name := strings.TrimPrefix(s.String(), "JOB_STATE_")
	return name[:1] + strings.ToLower(name[1:])
}

func final(s schedulerv1.JobState) bool {
	return s >= schedulerv1.JobState_JOB_STATE_SUCCEEDED
}

// parseState accepts a state's name in any case.
func parseState(s string) (schedulerv1.JobState, error) {
	if v, ok := schedulerv1.JobState_value["JOB_STATE_"+strings.ToUpper(s)]; ok && v != 0 {
		return schedulerv1.JobState(v), nil
	}
	var names []string
	for i := int32(1); i < int32(len(schedulerv1.JobState_name)); i++ {
		names = append(names, strings.ToLower(stateName(schedulerv1.JobState(i))))
	}
	return 0, usage("--state: %q is not a job state: allowed are %s", s, strings.Join(names, ", "))
}

// age says how long ago a Unix time in nanoseconds was, such as "3m12s".
func age(ns int64) string {
	if ns == 0 {
		return "-"
	}
	return short(time.Since(time.Unix(0, ns)))
}

// short writes a duration with at most two units.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// fine writes a duration that may be a small part of a second, such as "37ms".
func fine(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return short(d)
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}

func timestamp(ns int64) string {
	if ns == 0 {
		return "-"
	}
	return time.Unix(0, ns).Format("2006-01-02 15:04:05")
}

// metricsText lists metrics by name: "loss 0.12  test_accuracy 0.97".
func metricsText(m map[string]float64) string {
	var parts []string
	for k, v := range m {
		parts = append(parts, k+" "+metricText(v))
	}
	slices.Sort(parts)
	return strings.Join(parts, "  ")
}

func progressText(p *schedulerv1.Progress) string {
	if p == nil {
		return ""
	}
	out := fmt.Sprintf("step %d", p.GetStep())
	if p.GetTotalSteps() > 0 {
		out += fmt.Sprintf("/%d", p.GetTotalSteps())
	}
	if p.GetDataEpoch() > 0 {
		out += fmt.Sprintf(", epoch %.4g", p.GetDataEpoch())
	}
	if m := metricsText(p.GetMetrics()); m != "" {
		out += ", " + m
	}
	return out
}

// metricText writes a metric: a count such as a step in full, all else with four digits.
func metricText(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}
