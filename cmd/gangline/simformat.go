package main

import (
	"fmt"
	"time"
	_ "time/tzdata" // zones by name also where the system has no table of them

	"github.com/gangline/gangline/sim/trace"
)

// formatFlag is how a file of jobs is written.
type formatFlag struct{ format *trace.Format }

// String implements pflag.Value.
func (f formatFlag) String() string {
	if f.format == nil || *f.format == "" {
		return string(trace.FormatAuto)
	}
	return string(*f.format)
}

// Type implements pflag.Value.
func (f formatFlag) Type() string { return "format" }

// Set implements pflag.Value.
func (f formatFlag) Set(s string) (err error) {
	*f.format, err = trace.ParseFormat(s)
	return err
}

// zoneFlag is a time zone by its name.
type zoneFlag struct{ zone **time.Location }

// String implements pflag.Value.
func (z zoneFlag) String() string {
	if z.zone == nil || *z.zone == nil {
		return time.UTC.String()
	}
	return (*z.zone).String()
}

// Type implements pflag.Value.
func (z zoneFlag) Type() string { return "zone" }

// Set implements pflag.Value. The machine's own zone is no choice: equal inputs are to give equal output anywhere.
func (z zoneFlag) Set(s string) error {
	zone, err := time.LoadLocation(s)
	if err != nil || s == "" || s == "Local" {
		return fmt.Errorf("%q is not the name of a time zone such as Europe/Berlin or UTC", s)
	}
	*z.zone = zone
	return nil
}

// tellFormat says which format a file of jobs is taken for, if it is another than our own. What is wrong with the file
// is told when it is read.
func (a *app) tellFormat(fl *simRunFlags) {
	format := fl.trace.Format
	if format != "" && format != trace.FormatAuto {
		return
	}
	if onceOnly(fl.jobs) {
		return
	}
	if format, err := trace.FormatOf(fl.jobs); err == nil && format != trace.FormatCSV {
		a.statef("%s is read as %s (--format)", fl.jobs, format)
	}
}
