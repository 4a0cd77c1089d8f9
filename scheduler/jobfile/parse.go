package jobfile

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// MaxBytes bounds a job file: larger ones are surely something else.
const MaxBytes = 1 << 20

// Parse reads a job file. All problems are returned at once, joined, each with
// line and column. Name is used in errors only.
func Parse(name string, data []byte) (*schedulerv1.JobSpec, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%s: is %d bytes, a job file has at most %d", name, len(data), MaxBytes)
	}
	root, err := yamlfile.Document(data)
	if err != nil && !errors.Is(err, yamlfile.ErrEmpty) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err != nil || root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: not a job file: expected fields such as \"gpus: 8\" and \"command: [python, train.py]\"", name)
	}
	spec := &schedulerv1.JobSpec{}
	var errs []error
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if line, twice := seen[key.Value]; twice {
			errs = append(errs, fmt.Errorf("%s: %w", name, yamlfile.At(key, "field %q is given twice, first on line %d", key.Value, line)))
			continue
		}
		seen[key.Value] = key.Line
		if err := setField(spec, key, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	if seen["command"] > 0 && seen["script"] > 0 {
		errs = append(errs, fmt.Errorf("%s: line %d: give either command or script, not both", name, max(seen["command"], seen["script"])))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return spec, nil
}

func setField(spec *schedulerv1.JobSpec, key, value *yaml.Node) error {
	for _, f := range Fields() {
		if f.Name != key.Value {
			continue
		}
		if err := f.set(spec, value); err != nil {
			var fe *yamlfile.Error
			if errors.As(err, &fe) {
				return &yamlfile.Error{Line: fe.Line, Column: fe.Column, Text: f.Name + ": " + fe.Text}
			}
			return err
		}
		return nil
	}
	if what, ok := planned[key.Value]; ok {
		return yamlfile.At(key, "field %q (%s) is not supported by this release: remove it", key.Value, what)
	}
	return yamlfile.Unknown(key, "field", names())
}

func names() []string {
	var out []string
	for _, f := range Fields() {
		out = append(out, f.Name)
	}
	return out
}

// IsFlag reports whether the field can be given as one flag with one value.
func (f Field) IsFlag() bool { return f.flag }

// Flag returns the name of the field's flag, such as "gpus-per-node".
func (f Field) Flag() string { return strings.ReplaceAll(f.Name, "_", "-") }

// Set sets the field from a flag's value; it overrides what a file said.
func (f Field) Set(spec *schedulerv1.JobSpec, value string) error {
	if err := f.set(spec, &yaml.Node{Kind: yaml.ScalarNode, Value: value}); err != nil {
		return fmt.Errorf("--%s: %w", f.Flag(), err)
	}
	return nil
}
