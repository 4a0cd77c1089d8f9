package main

import (
	"errors"
	"fmt"
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

// notFromEnv are flags that a variable meant for something else could set by
// accident: workers run with GANGLINE_JOB_NAME and the like.
var notFromEnv = []string{"help", "version", "config", "print-config", "job-id", "name", "env", "file"} //nolint:gochecknoglobals // table

// applyEnvironment sets flags that were not given from --config's file and the environment.
func applyEnvironment(cmd *cobra.Command) error {
	if err := applyFile(cmd); err != nil {
		return err
	}
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		v, ok := os.LookupEnv(envName(f.Name))
		if f.Changed && f.Annotations["file"] == nil || !ok || slices.Contains(notFromEnv, f.Name) {
			return
		}
		if err := cmd.Flags().Set(f.Name, v); err != nil {
			errs = append(errs, fmt.Errorf("%s=%q in the environment: %w", envName(f.Name), v, err))
		}
	})
	if len(errs) > 0 {
		return &exitError{exitUsage, errors.Join(errs...)}
	}
	return nil
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
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		f := cmd.Flags().Lookup(k.Value)
		if f == nil || cmd.PersistentFlags().Lookup("config") == f {
			return usage("%s: line %d, column %d: unknown setting %q: allowed are %s", path, k.Line, k.Column, k.Value, strings.Join(flagNames(cmd), ", "))
		}
		if f.Changed {
			continue
		}
		if err := cmd.Flags().Set(k.Value, settingText(v)); err != nil {
			return usage("%s: line %d, column %d: %s: %w", path, v.Line, v.Column, k.Value, err)
		}
		_ = cmd.Flags().SetAnnotation(k.Value, "file", []string{path}) // the flag exists
	}
	return nil
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

func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(notFromEnv, f.Name) || f.Name == "name" {
			names = append(names, f.Name)
		}
	})
	return names
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
		if f.Name == "help" || f.Name == "config" || f.Name == "print-config" {
			return
		}
		value := &yaml.Node{Kind: yaml.ScalarNode, Value: strings.Trim(f.Value.String(), "[]")}
		doc.Content = append(doc.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: f.Name, HeadComment: f.Usage}, value)
	})
	b, err := yaml.Marshal(&doc)
	if err != nil {
		return true, err
	}
	_, err = cmd.OutOrStdout().Write(b)
	return true, err
}
