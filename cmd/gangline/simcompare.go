package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gangline/gangline/sim/compare"
	"github.com/gangline/gangline/sim/htmlreport"
	"github.com/gangline/gangline/sim/replay"
)

func (a *app) simCompareCmd() *cobra.Command {
	fl := newSimRunFlags()
	var with []string
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Replay recorded jobs in several ways side by side: what changes, for whom, and from which decision on",
		Long: `Replay the same recorded jobs under several policies, orders or clusters, and say
what differs: the figures, how each queue and user fares, how many jobs end
sooner or later, and the first decision that was another one, with what each
side did and why.

The command line's own flags are those of "gangline sim run" and make the first
run. Each --with makes one more, which has these flags too and changes some:
"FLAG=VALUE,FLAG=VALUE", without the dashes; a flag that is on or off may stand
alone. "NAME: ..." in front gives the run a name.

Interrupted once, it ends with the runs until then, marked as partial, and exit
code 130; interrupted again, it ends at once.`,
		Example: `  gangline sim compare --jobs philly.csv.gz --nodes nodes.csv --with order=las --with order=fifo
  gangline sim compare --jobs philly.csv.gz --nodes nodes.csv --with "bigger: nodes=more.csv,policy=new.yaml"
  gangline sim compare --jobs philly.csv.gz --nodes nodes.csv --quotas --with "parts: quotas=false,partitions" --html report.html`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(with) == 0 {
				return usage(`--with is needed, at least once: what the second run changes, such as --with order=fifo`)
			}
			return a.simCompare(cmd, fl, with)
		},
	}
	f := cmd.Flags()
	fl.register(f)
	for _, name := range madeUp {
		_ = f.MarkHidden(name) // it is a flag of the same set
	}
	f.StringArrayVar(&with, "with", nil, `one more run, and what it changes: "order=las" or "NAME: policy=a.yaml,nodes=b.csv" (may be given several times)`)
	f.StringVar(&fl.out.html, "html", "", "also write a report with pictures to this file")
	return cmd
}

// variant is the command line of one run.
type variant struct {
	name  string
	flags *simRunFlags
}

// base names the first run.
const base = "base"

// variants makes the flags of all runs.
func variants(f *pflag.FlagSet, with []string) ([]variant, error) {
	var out []variant
	for i, text := range append([]string{""}, with...) {
		v := variant{name: base, flags: newSimRunFlags()}
		set := pflag.NewFlagSet("with", pflag.ContinueOnError)
		v.flags.register(set)
		f.Visit(func(fl *pflag.Flag) {
			if own := set.Lookup(fl.Name); own != nil {
				_ = set.Set(fl.Name, flagText(fl)) // it was taken once already
			}
		})
		if i > 0 {
			name, changes, err := parseWith(set, text)
			if err != nil {
				return nil, err
			}
			if v.name = name; len(changes) == 0 {
				return nil, usage("--with %q: changes nothing: say what, such as order=fifo", text)
			}
			for _, c := range changes {
				if err := set.Set(c[0], c[1]); err != nil {
					return nil, usage("--with %q: %s: %w", text, c[0], err)
				}
			}
		}
		if slices.ContainsFunc(out, func(o variant) bool { return o.name == v.name }) {
			return nil, usage("--with %q: there is a run %q already: give this one another name (\"NAME: ...\")", text, v.name)
		}
		replays, err := v.flags.choose(set)
		if err != nil {
			return nil, err
		}
		if !replays {
			return nil, usage("--jobs and --nodes must be files: sim compare replays what was recorded")
		}
		if onceOnly(v.flags.jobs) {
			return nil, usage("--jobs %s: each run reads the jobs anew, and a pipe can be read once only: put them in a file", v.flags.jobs)
		}
		out = append(out, v)
	}
	return out, nil
}

// flagText is a flag's value as it may be set again.
func flagText(f *pflag.Flag) string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return strings.Join(list.GetSlice(), ",")
	}
	return f.Value.String()
}

// parseWith reads "NAME: FLAG=VALUE,FLAG=VALUE". A comma that no flag follows belongs to the value before it.
func parseWith(set *pflag.FlagSet, text string) (name string, changes [][2]string, err error) {
	name = strings.TrimSpace(text)
	rest := text
	if head, tail, ok := strings.Cut(text, ":"); ok && !strings.Contains(head, "=") && set.Lookup(strings.TrimSpace(head)) == nil {
		name, rest = strings.TrimSpace(head), tail
	}
	if name == "" {
		return "", nil, usage("--with %q: has no name before the colon", text)
	}
	for _, part := range strings.Split(rest, ",") {
		key, value, has := strings.Cut(strings.TrimSpace(part), "=")
		key = strings.TrimLeft(key, "-")
		f := set.Lookup(key)
		switch {
		case part == "" && len(changes) == 0:
		case f == nil && len(changes) > 0 && !has:
			changes[len(changes)-1][1] += "," + part
		case f == nil || slices.Contains([]string{"jobs", "wall"}, key):
			return "", nil, usage("--with %q: %q is not a flag of \"gangline sim run\" that a run may change: see \"gangline sim compare --help\"", text, key)
		case !has && f.NoOptDefVal == "":
			return "", nil, usage("--with %q: %s needs a value: %s=...", text, key, key)
		case !has:
			changes = append(changes, [2]string{key, f.NoOptDefVal})
		default:
			changes = append(changes, [2]string{key, value})
		}
	}
	return name, changes, nil
}

// simCompare replays all variants.
func (a *app) simCompare(cmd *cobra.Command, fl *simRunFlags, with []string) error {
	all, err := variants(cmd.Flags(), with)
	if err != nil {
		return err
	}
	a.tellFormat(fl)
	stop, done := fl.out.interruptible(cmd.Context())
	defer done()
	began := time.Now()
	var runs []compare.Run
	end := func() {}
	for _, v := range all {
		var bar *replay.Watch
		opened := false
		r := compare.Run{Name: v.name, Watch: &replay.Watch{Progress: func(p *replay.Progress) bool {
			if bar != nil && !bar.Progress(p) {
				return false
			}
			return stop.Progress(p)
		}}}
		r.Open = func() (*replay.Trace, error) {
			end()
			end = func() {}
			v.flags.trace.Read = nil
			if !opened { // the second time it is only looked at where the runs part
				bar, end = a.progress(v.name, v.flags.jobs, &v.flags.trace)
			}
			opened = true
			tr, err := v.flags.load()
			if err != nil {
				return nil, &exitError{exitUsage, err}
			}
			return tr, nil
		}
		if r.Config, err = v.flags.config(); err != nil {
			return &exitError{exitUsage, err}
		}
		runs = append(runs, r)
	}
	result, err := compare.Runs(runs)
	end()
	if err != nil {
		return err
	}
	return a.showCompared(cmd.Context(), fl, result, fl.speed(cmd.Flags(), began))
}

// showCompared writes what the runs gave.
func (a *app) showCompared(_ context.Context, fl *simRunFlags, result *compare.Result, speed *replay.Speed) error {
	err := fl.out.page(&htmlreport.Page{
		Title: filepath.Base(fl.jobs) + ", compared", Command: a.commandLine(), Version: version, Speed: speed, Result: result,
	})
	if err != nil {
		return err
	}
	if a.json {
		err = writeCompared(a, result, speed)
	} else {
		err = result.WriteText(a.out)
		if speed != nil {
			fmt.Fprintf(a.out, "\nspeed: %.1f s in all, %d MiB\n", speed.Wall.Seconds(), speed.PeakRSS>>20)
		}
	}
	if err != nil || !result.Partial {
		return err
	}
	return interrupted()
}

// writeCompared writes one JSON object on one line.
func writeCompared(a *app, result *compare.Result, speed *replay.Speed) error {
	out := struct {
		*compare.Result
		Wall *float64 `json:"wall_s,omitempty"`
		RSS  *float64 `json:"peak_rss_mib,omitempty"`
	}{Result: result}
	if speed != nil {
		wall, rss := speed.Wall.Seconds(), float64(speed.PeakRSS)/(1<<20)
		out.Wall, out.RSS = &wall, &rss
	}
	return json.NewEncoder(a.out).Encode(out)
}
