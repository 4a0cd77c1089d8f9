package main

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"
)

// Settings come from, weakest first: defaults, the file of --config (server
// and agent only), GANGLINE_* in the environment, flags.

// envName is the environment variable of a flag: --data-dir is GANGLINE_DATA_DIR.
func envName(flag string) string {
	return "GANGLINE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnv reports whether the environment may set a flag: the flags that all
// verbs share, and the settings of programs that run for long. What a person
// asks for in one command, such as the GPUs of a job, only that command says.
func fromEnv(cmd *cobra.Command, f *pflag.Flag) bool {
	if slices.Contains(notFromEnv, f.Name) {
		return false
	}
	runsForLong := cmd.Flags().Lookup("config") != nil
	return runsForLong || cmd.InheritedFlags().Lookup(f.Name) != nil
}

// notFromEnv are flags that a variable meant for something else could set by
// accident: workers run with GANGLINE_JOB_NAME, GANGLINE_EPOCH and the like,
// and GANGLINE_USER says who submits.
var notFromEnv = []string{"help", "version", "config", "print-config", "name", "env", "epoch", "user"} //nolint:gochecknoglobals // table

// applySettings sets the flags that were not given: from the environment, then
// those that are still not set from --config's file.
func applySettings(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		v, ok := os.LookupEnv(envName(f.Name))
		if f.Changed || !ok || !fromEnv(cmd, f) {
			return
		}
		if err := cmd.Flags().Set(f.Name, v); err != nil {
			errs = append(errs, usage("%s=%q in the environment: %w", envName(f.Name), v, err))
		}
	})
	return errors.Join(append(errs, applyFile(cmd))...)
}

// applyFile reads --config: a YAML map from flag names to values.
func applyFile(cmd *cobra.Command) error {
	flag := cmd.Flags().Lookup("config")
	if flag == nil || flag.Value.String() == "" {
		return nil
	}
	path := flag.Value.String()
	data, err := os.ReadFile(path)
	if err != nil {
		return usage("--config: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return usage("%s: not valid YAML: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return usage("%s: expected settings such as \"data-dir: /var/lib/gangline\"", path)
	}
	allowed, seen := settingNames(cmd), map[string]int{}
	var errs []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		first, twice := seen[k.Value]
		seen[k.Value] = k.Line
		switch {
		case !slices.Contains(allowed, k.Value):
			errs = append(errs, usage("%s: line %d, column %d: unknown setting %q: allowed are %s", path, k.Line, k.Column, k.Value, strings.Join(allowed, ", ")))
		case twice:
			errs = append(errs, usage("%s: line %d, column %d: setting %q is given twice, first on line %d", path, k.Line, k.Column, k.Value, first))
		case !cmd.Flags().Changed(k.Value):
			if err := cmd.Flags().Set(k.Value, settingText(v)); err != nil {
				errs = append(errs, usage("%s: line %d, column %d: %s: %w", path, v.Line, v.Column, k.Value, err))
			}
		}
	}
	return errors.Join(errs...)
}

// settingNames are the flags that a file may set.
func settingNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !slices.Contains([]string{"help", "config", "print-config"}, f.Name) {
			names = append(names, f.Name)
		}
	})
	return names
}

// settingText is a YAML value as a flag would be given it: lists by commas.
func settingText(n *yaml.Node) string {
	if n.Kind != yaml.SequenceNode && n.Kind != yaml.MappingNode {
		return n.Value
	}
	var parts []string
	for i := 0; i < len(n.Content); i++ {
		if n.Kind == yaml.MappingNode && i+1 < len(n.Content) {
			parts = append(parts, n.Content[i].Value+"="+n.Content[i+1].Value)
			i++
			continue
		}
		parts = append(parts, n.Content[i].Value)
	}
	return strings.Join(parts, ",")
}

// configFlags adds --config and --print-config to a verb that runs for long.
func configFlags(cmd *cobra.Command) {
	cmd.Flags().String("config", "", "YAML file with settings, named as the flags are")
	cmd.Flags().Bool("print-config", false, "print the settings in force and exit")
}

// printConfig prints the settings in force if asked; it reports whether it did.
func printConfig(cmd *cobra.Command) (bool, error) {
	if on, _ := cmd.Flags().GetBool("print-config"); !on {
		return false, nil
	}
	var doc yaml.Node
	doc.Kind = yaml.MappingNode
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(settingNames(cmd), f.Name) {
			return
		}
		text := f.Value.String()
		if t := f.Value.Type(); t == "stringSlice" || t == "stringToString" {
			text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
		}
		value := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
		if strings.HasPrefix(f.Value.Type(), "string") {
			value.Tag = "!!str" // quoted where it has to be: "[::1]:7070"
		}
		doc.Content = append(doc.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: f.Name, HeadComment: f.Usage}, value)
	})
	b, err := yaml.Marshal(&doc)
	if err != nil {
		return true, err
	}
	_, err = cmd.OutOrStdout().Write(b)
	return true, err
}
