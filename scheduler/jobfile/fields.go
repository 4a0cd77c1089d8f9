package jobfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// Field is one field of a job file, and the flag of the same name (with
// dashes for underscores).
type Field struct {
	Name  string
	Usage string // one line; says the unit and the default
	set   func(spec *schedulerv1.JobSpec, n *yaml.Node) error
	flag  bool // can be given as a single flag
}

// Fields returns all fields, in the order in which they are documented.
func Fields() []Field {
	return []Field{
		{"name", "name for people (default: the command's name)", scalar(func(s *schedulerv1.JobSpec, v string) error { s.Name = v; return nil }), true},
		{"queue", `queue path such as research/vision (default "default")`, scalar(func(s *schedulerv1.JobSpec, v string) error { s.Queue = v; return nil }), true},
		{"priority", "0..100, higher starts first (default 50)", scalar(setPriority), true},
		{"gpus", "size of the gang in GPUs, or 8..32: elastic, at least 8 and at most 32 (default 1)", setGPUs, true},
		{"gpu_share", "share of one GPU such as 0.5, with gpus 1 (default: whole GPUs)", scalar(setShare), true},
		{"gpus_per_node", "exactly this many GPUs on each node (default: the scheduler chooses)", integer(func(s *schedulerv1.JobSpec) *int32 { return &s.GpusPerNode }), true},
		{"gpu_type", "acceptable GPU types, preferred first, such as h100,a100 (default: any)", list(func(s *schedulerv1.JobSpec) *[]string { return &s.GpuTypes }), true},
		{"cpus_per_gpu", "CPUs reserved for each GPU, such as 8 or 0.5 (default: none)", scalar(setCPUs), true},
		{"memory_per_gpu", "memory reserved for each GPU, such as 64GiB (default: none)", scalar(setMemory), true},
		{"topology", "level of the topology within which the gang is to be, such as rack (preferred) or rack:required", setTopology, true},
		{"node_selector", "labels that each node must have, such as zone=a,disk=nvme", setSelector, true},
		{"tolerations", "taints of nodes that the job bears, such as maintenance or team=vision", list(func(s *schedulerv1.JobSpec) *[]string { return &s.Tolerations }), true},
		{"array", "make a job for each index, such as 0-99, 0-99:2 (every second) or 0-99%8 (8 at a time)", scalar(setArray), true},
		{"after", "start after these jobs have ended, such as ok:12,any:13 (ok, notok or any; each:12: member by member of two arrays)", setAfter, true},
		{"time_limit", "longest run of one epoch, such as 24h (default: no limit)", duration(func(s *schedulerv1.JobSpec, ms int64) { s.TimeLimitMs = ms }), true},
		{"launch", "per-gpu: a process for each GPU; per-node: one launcher for each node (default per-gpu)", scalar(setLaunch), true},
		{"command", "program and arguments of a worker", setCommand, false},
		{"script", "shell script to run instead of a command", scalar(setScript), false},
		{"env", "environment variable NAME=VALUE; may be repeated", setEnv, false},
		{"dir", "working directory on the nodes (default: the worker's own directory)", scalar(func(s *schedulerv1.JobSpec, v string) error { s.Dir = v; return nil }), true},
		{"retries", "how often a failed job is started again; lost nodes do not count (default 0)", integer(func(s *schedulerv1.JobSpec) *int32 { return &s.Retries }), true},
		{"on_failure", "restart: a failed worker stops the gang; shrink: an elastic gang goes on without it, and another takes its place while retries last (default restart)", scalar(setOnFailure), true},
		{"preemptible", "whether the scheduler may evict it so that another can start (default false)", scalar(setPreemptible), true},
		{"warn", "time from the warning signal (SIGUSR1) to SIGTERM when it is stopped (default 30s)", duration(func(s *schedulerv1.JobSpec, ms int64) { s.WarnMs = &ms }), true},
		{"grace", "time from SIGTERM to SIGKILL when it is stopped (default 10s)", duration(func(s *schedulerv1.JobSpec, ms int64) { s.GraceMs = &ms }), true},
		{"checkpoint", "when to save and what to keep, such as interval=auto,keep=3,every=1000,best=loss:min,push=all (default: as the program does)", setCheckpoint, true},
	}
}

// planned are the fields of the job file's format that this release refuses
// rather than ignores.
var planned = map[string]string{ //nolint:gochecknoglobals // table
	"env_compat": "environments of other launchers",
}

// scalar makes a setter from a function on the text of a plain value.
func scalar(set func(*schedulerv1.JobSpec, string) error) func(*schedulerv1.JobSpec, *yaml.Node) error {
	return func(s *schedulerv1.JobSpec, n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode {
			return yamlfile.At(n, "expected one value, not a %s", yamlfile.Kind(n))
		}
		if err := set(s, n.Value); err != nil {
			return yamlfile.At(n, "%s", err)
		}
		return nil
	}
}

func integer(field func(*schedulerv1.JobSpec) *int32) func(*schedulerv1.JobSpec, *yaml.Node) error {
	return scalar(func(s *schedulerv1.JobSpec, v string) error {
		i, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", v)
		}
		*field(s) = int32(i)
		return nil
	})
}

func duration(set func(s *schedulerv1.JobSpec, ms int64)) func(*schedulerv1.JobSpec, *yaml.Node) error {
	return scalar(func(s *schedulerv1.JobSpec, v string) error {
		d, err := yamlfile.ParseDuration(v)
		set(s, d.Milliseconds())
		return err
	})
}

// list makes a setter for a list of words: a YAML list, or words split by commas.
func list(field func(*schedulerv1.JobSpec) *[]string) func(*schedulerv1.JobSpec, *yaml.Node) error {
	return func(s *schedulerv1.JobSpec, n *yaml.Node) error {
		words, err := strs(n)
		if n.Kind == yaml.ScalarNode {
			words = strings.FieldsFunc(n.Value, func(r rune) bool { return r == ',' || r == ' ' })
		}
		*field(s) = words
		return err
	}
}

func strs(n *yaml.Node) ([]string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		return []string{n.Value}, nil
	case yaml.SequenceNode:
		var out []string
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return nil, yamlfile.At(c, "expected a word, not a %s", yamlfile.Kind(c))
			}
			out = append(out, c.Value)
		}
		return out, nil
	default:
		return nil, yamlfile.At(n, "expected a list such as [a, b], not a %s", yamlfile.Kind(n))
	}
}

func setPriority(s *schedulerv1.JobSpec, v string) error {
	p, err := strconv.ParseInt(v, 10, 32)
	if err != nil || p < 0 || p > 100 {
		return fmt.Errorf("%q is not a whole number in 0..100 (higher starts first)", v)
	}
	p32 := int32(p)
	s.Priority = &p32
	return nil
}

func setCPUs(s *schedulerv1.JobSpec, v string) error {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || f < 0 || f > 1e6 {
		return fmt.Errorf("%q is not a number of CPUs such as 8 or 0.5", v)
	}
	s.CpuMilliPerGpu = int64(f*1000 + 0.5)
	return nil
}

func setMemory(s *schedulerv1.JobSpec, v string) error {
	b, err := yamlfile.ParseBytes(v)
	s.MemoryBytesPerGpu = b
	return err
}

func setLaunch(s *schedulerv1.JobSpec, v string) error {
	switch v {
	case "per-gpu":
		s.Launch = schedulerv1.LaunchMode_LAUNCH_MODE_PER_GPU
	case "per-node":
		s.Launch = schedulerv1.LaunchMode_LAUNCH_MODE_PER_NODE
	default:
		return fmt.Errorf("%q is not a launch mode: allowed are per-gpu and per-node", v)
	}
	return nil
}

func setOnFailure(s *schedulerv1.JobSpec, v string) error {
	switch v {
	case "restart":
		s.OnFailure = schedulerv1.OnFailure_ON_FAILURE_RESTART
	case "shrink":
		s.OnFailure = schedulerv1.OnFailure_ON_FAILURE_SHRINK
	default:
		return fmt.Errorf("%q does not say what becomes of a gang: allowed are restart and shrink", v)
	}
	return nil
}

func setPreemptible(s *schedulerv1.JobSpec, v string) error {
	switch v {
	case "true":
		s.Preemptible = true
	case "false":
		s.Preemptible = false
	default:
		return fmt.Errorf("%q is not true or false", v)
	}
	return nil
}

func setCommand(s *schedulerv1.JobSpec, n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return yamlfile.At(n, `expected a list such as [python, train.py]; for a shell script use "script"`)
	}
	words, err := strs(n)
	if err == nil && len(words) == 0 {
		return yamlfile.At(n, "is empty: give the program to run and its arguments")
	}
	s.Command = words
	return err
}

func setScript(s *schedulerv1.JobSpec, v string) error {
	if strings.TrimSpace(v) == "" {
		return fmt.Errorf("is empty")
	}
	s.Command = []string{"/bin/sh", "-e", "-c", v}
	return nil
}

func setEnv(s *schedulerv1.JobSpec, n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return yamlfile.At(n, `expected NAME: "value" pairs, not a %s`, yamlfile.Kind(n))
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if v.Kind != yaml.ScalarNode {
			return yamlfile.At(v, "env %s: expected a value, not a %s", k.Value, yamlfile.Kind(v))
		}
		setVar(s, k.Value, v.Value)
	}
	return nil
}

// SetEnv sets a variable from NAME=VALUE, as a flag gives it.
func SetEnv(s *schedulerv1.JobSpec, pair string) error {
	name, value, ok := strings.Cut(pair, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not of the form NAME=VALUE", pair)
	}
	setVar(s, name, value)
	return nil
}

func setVar(s *schedulerv1.JobSpec, name, value string) {
	s.Env = slices.DeleteFunc(s.Env, func(e *schedulerv1.EnvVar) bool { return e.GetName() == name })
	s.Env = append(s.Env, &schedulerv1.EnvVar{Name: name, Value: value})
}
