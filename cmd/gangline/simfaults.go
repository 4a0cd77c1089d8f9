package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gangline/gangline/sim/replay"
)

func faultsHelp() string {
	return "replay: what starting and saving cost and what fails, a file or one of " + strings.Join(replay.Presets(), ", ") +
		"; default: nothing. Made-up run: whether anything fails, true or false; default: true"
}

// simFaultsCmd shows conditions as a file.
func (a *app) simFaultsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "faults [NAME|FILE]",
		Short: "Show what --faults of \"sim run\" may say: all fields of a preset or of a file, with their values",
		Long: `Print conditions of a replay as a file for "gangline sim run --faults": what it
costs to start, save and stop a job, and how often what fails. A file may leave
out what it does not change, and names with "preset:" what it changes.`,
		Example: `  gangline sim faults              # the default
  gangline sim faults llama3
  gangline sim faults my.yaml      # checked, with all that it leaves out`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := "default"
			if len(args) > 0 {
				name = args[0]
			}
			c, err := conditions(name)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			_, err = fmt.Fprint(a.out, c.Format())
			return err
		},
	}
}

// conditions reads a preset or a file.
func conditions(name string) (*replay.Conditions, error) {
	if c, ok := replay.Preset(name); ok {
		return c, nil
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--faults %s: is neither a file nor one of %s", name, strings.Join(replay.Presets(), ", "))
	}
	if err != nil {
		return nil, err
	}
	c, err := replay.ParseConditions(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// setFaults gives --faults its meaning in either kind of run.
func (fl *simRunFlags) setFaults(replays bool) (err error) {
	fl.replay.Seed = fl.world.Seed
	on, errBool := strconv.ParseBool(fl.faults)
	switch {
	case fl.faults == "":
	case replays && errBool == nil && !on:
	case replays && errBool == nil:
		fl.replay.Conditions, _ = replay.Preset("default")
	case replays:
		if fl.replay.Conditions, err = conditions(fl.faults); err != nil {
			return &exitError{exitUsage, err}
		}
	case errBool != nil:
		return usage("--faults %s: a made-up run takes true or false; a file is for recorded jobs", fl.faults)
	default:
		fl.world.Faults = on
	}
	return nil
}

// repeatable adds to the error of a run that failed the command that repeats it.
func repeatable(cmd *cobra.Command, err error) error {
	var told *exitError
	if err == nil || errors.As(err, &told) {
		return err // a usage error is no failed run
	}
	words := []string{cmd.CommandPath()}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if cmd.InheritedFlags().Lookup(f.Name) != nil {
			return // where servers are, and the like
		}
		v := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			v = strings.Join(list.GetSlice(), ",")
		}
		if strings.ContainsAny(v, " \t\n'\"\\$") {
			v = strconv.Quote(v)
		}
		words = append(words, "--"+f.Name+"="+v)
	})
	return fmt.Errorf("%w\nrepeat it (version %s) with: %s", err, version, strings.Join(words, " "))
}
