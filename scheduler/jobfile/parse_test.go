package jobfile

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := Parse("job.yaml", []byte(`
name: digits
queue: research/vision
priority: 70
gpus: 16
gpus_per_node: 8
gpu_type: [h100, a100]
cpus_per_gpu: 8
memory_per_gpu: 64GiB
time_limit: 1d12h
launch: per-node
command: [python, train.py, "--lr", 0.1]
env: {OMP_NUM_THREADS: "8", N: 3}
retries: 3
preemptible: true
grace: 90s
warn: 2m
checkpoint: {keep: 3}
`))
	if err != nil {
		t.Fatal(err)
	}
	priority, warn, grace := int32(70), int64(120_000), int64(90_000)
	want := &schedulerv1.JobSpec{
		Name: "digits", Queue: "research/vision", Priority: &priority, Gpus: 16, GpusPerNode: 8, GpuTypes: []string{"h100", "a100"},
		CpuMilliPerGpu: 8000, MemoryBytesPerGpu: 64 << 30, TimeLimitMs: (36 * time.Hour).Milliseconds(),
		Launch: schedulerv1.LaunchMode_LAUNCH_MODE_PER_NODE, Command: []string{"python", "train.py", "--lr", "0.1"},
		Env:     []*schedulerv1.EnvVar{{Name: "OMP_NUM_THREADS", Value: "8"}, {Name: "N", Value: "3"}},
		Retries: 3, Preemptible: true, GraceMs: &grace, WarnMs: &warn, CheckpointKeep: 3,
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Fatal(diff)
	}
}

// TestPlacement reads where and in which sizes a gang may run, as a file and as flags.
func TestPlacement(t *testing.T) {
	t.Parallel()
	got, err := Parse("job.yaml", []byte(`
gpus: {min: 8, max: 32}
topology: {level: rack, mode: required}
node_selector: {zone: a, disk: nvme}
tolerations: [maintenance, team=vision]
on_failure: shrink
array: 0-99:2%8
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &schedulerv1.JobSpec{
		MinGpus: 8, Gpus: 32, Topology: &schedulerv1.TopologyWish{Level: "rack", Required: true},
		NodeSelector: map[string]string{"zone": "a", "disk": "nvme"}, Tolerations: []string{"maintenance", "team=vision"},
		Array:     &schedulerv1.ArraySpec{First: 0, Last: 99, Step: 2, Parallel: 8},
		OnFailure: schedulerv1.OnFailure_ON_FAILURE_SHRINK,
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Fatal(diff)
	}
	flags := &schedulerv1.JobSpec{}
	values := map[string]string{
		"gpus": "8..32", "topology": "rack:required", "node_selector": "zone=a, disk=nvme", "tolerations": "maintenance,team=vision", "array": "0-99:2%8", "on_failure": "shrink",
	}
	for _, f := range Fields() {
		if v, ok := values[f.Name]; ok {
			if err := f.Set(flags, v); err != nil {
				t.Error(err)
			}
		}
	}
	if diff := cmp.Diff(want, flags, protocmp.Transform()); diff != "" {
		t.Fatal(diff)
	}
}

func TestShortForms(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]*schedulerv1.JobSpec{
		"gpus: 4":                 {Gpus: 4},
		"gpus: 8..32":             {MinGpus: 8, Gpus: 32},
		"gpu_share: 0.5":          {GpuMilli: 500},
		"gpu_share: 0.125":        {GpuMilli: 125},
		"gpu_share: 1":            {},
		"topology: rack":          {Topology: &schedulerv1.TopologyWish{Level: "rack"}},
		"topology: {level: rack}": {Topology: &schedulerv1.TopologyWish{Level: "rack"}},
		"after: 7":                {After: []*schedulerv1.Dependency{{Job: 7, Condition: schedulerv1.Condition_CONDITION_OK}}},
		"after: [ok:7, any:8_3]": {After: []*schedulerv1.Dependency{
			{Job: 7, Condition: schedulerv1.Condition_CONDITION_OK}, {Job: 8, Condition: schedulerv1.Condition_CONDITION_ANY, Index: proto.Int32(3)},
		}},
		"after: notok:7, each:9": {After: []*schedulerv1.Dependency{
			{Job: 7, Condition: schedulerv1.Condition_CONDITION_NOT_OK}, {Job: 9, Condition: schedulerv1.Condition_CONDITION_OK, Each: true},
		}},
		"checkpoint: {interval: auto}":                  {Checkpoints: &schedulerv1.CheckpointPolicy{IntervalAuto: true}},
		"checkpoint: {interval: 10m, keep: 2, push: 5}": {CheckpointKeep: 2, Checkpoints: &schedulerv1.CheckpointPolicy{IntervalMs: 600_000, PushNth: 5}},
		"checkpoint: {keep: 2, every: 1000, best: [loss:min, acc:max:2]}": {CheckpointKeep: 2, Checkpoints: &schedulerv1.CheckpointPolicy{
			KeepEvery: 1000, KeepBest: []*schedulerv1.KeepBest{{Metric: "loss", Lowest: true, Count: 1}, {Metric: "acc", Count: 2}},
		}},
		"checkpoint: interval=500 steps,keep=2,best=loss:min,best=acc:max,push=all": {CheckpointKeep: 2, Checkpoints: &schedulerv1.CheckpointPolicy{
			IntervalSteps: 500, PushNth: 1, KeepBest: []*schedulerv1.KeepBest{{Metric: "loss", Lowest: true, Count: 1}, {Metric: "acc", Count: 1}},
		}},
		"checkpoint: {keep: 2, local: tensors}": {CheckpointKeep: 2, Env: []*schedulerv1.EnvVar{{Name: "GANGLINE_CHECKPOINT_LOCAL", Value: "tensors"}}},
		"array: 0-3":                            {Array: &schedulerv1.ArraySpec{Last: 3, Step: 1}},
		"array: 7":                              {Array: &schedulerv1.ArraySpec{First: 7, Last: 7, Step: 1}},
		"array: 1-9%2":                          {Array: &schedulerv1.ArraySpec{First: 1, Last: 9, Step: 1, Parallel: 2}},
	} {
		got, err := Parse("f", []byte(file))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s:\n%s", file, diff)
		}
	}
}

func TestParseScript(t *testing.T) {
	t.Parallel()
	got, err := Parse("job.yaml", []byte("gpus: 1\nscript: |\n  echo a\n  echo b\n"))
	if err != nil || got.GetCommand()[3] != "echo a\necho b\n" {
		t.Fatalf("%v, %v", got, err)
	}
}

// TestErrors: each says where, what and what is allowed.
func TestErrors(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"gpus: 8\ngpu: 3\n":                   `f: line 2, column 1: unknown field "gpu" (did you mean "gpus"?): allowed are name, queue,`,
		"memory_per_gpu: 64\n":                `f: line 1, column 17: memory_per_gpu: "64" is not a size with a unit: write it like 64GiB`,
		"memory_per_gpu: 64Gib\n":             `allowed units: KiB MiB`,
		"a: 1\ntime_limit: 90\n":              `line 2, column 13: time_limit: "90" is not a duration with a unit: write it like 90s`,
		"gpus: many\n":                        `line 1, column 7: gpus: "many" is not a whole number of GPUs, 1 or more`,
		"gpus: {min: 3, max: 2}\n":            `line 1, column 7: gpus: min 3 and max 2: both are at least 1, and min is at most max`,
		"gpus: {min: 3}\n":                    `an elastic gang has a smallest and a largest size`,
		"gpus: {miin: 3}\n":                   `unknown field "miin" (did you mean "min"?): allowed are max, min`,
		"gpus: {min: 3, min: 4}\n":            `"min" is given twice`,
		"gpus: 32..8\n":                       `the smallest size comes first`,
		"gpus: 8..\n":                         `"" is not a whole number of GPUs`,
		"gpu_share: 1.5\n":                    `line 1, column 12: gpu_share: "1.5" is not a share of a GPU above 0 and at most 1`,
		"gpu_share: 0.0001\n":                 `at most three decimals`,
		"gpu_share: NaN\n":                    `is not a share`,
		"topology: {mode: required}\n":        `names no level`,
		"topology: {level: rack, mode: no}\n": `line 1, column 31: topology: "no" is not a mode: allowed are preferred and required`,
		"topology: [rack]\n":                  `expected {level: rack, mode: preferred}, not a list`,
		"topology: rack:must\n":               `"must" is not a mode`,
		"node_selector: {a: [b]}\n":           `line 1, column 20: node_selector: a: expected a value, not a list`,
		"node_selector: {a: 1, a: 2}\n":       `label a is given twice`,
		"node_selector: zone\n":               `"zone" is not of the form LABEL=VALUE`,
		"tolerations: {a: b}\n":               `expected a list`,
		"array: 9-0\n":                        `the last index is below the first`,
		"array: 0-9:0\n":                      `is not a range of indices such as 0-99, 0-99:2 (every second)`,
		"array: 1,2\n":                        `is not a range of indices`,
		"after: [ok:0]\n":                     `line 1, column 8: after: "ok:0" is not a job to wait for such as ok:12`,
		"after: afterok:3\n":                  `"afterok" is not a condition: allowed are ok, notok, any and each (afterok is ok here)`,
		"after: each:3_1\n":                   `name the array alone, each:3`,
		"after: {ok: 3}\n":                    `expected a list`,
		"env_compat: [slurm]\n":               `field "env_compat"`,
		"command: python train.py\n":          `expected a list such as [python, train.py]`,
		"launch: both\n":                      `allowed are per-gpu and per-node`,
		"gpus: 1\ngpus: 2\n":                  `gangline`, // replaced below: YAML itself may refuse duplicate keys
		"priority: 101\n":                     `"101" is not a whole number in 0..100`,
		"checkpoint: {evry: 5}\n":             `unknown field "evry"`,
		"checkpoint: {keep: 1, keep: 2}\n":    `"keep" is given twice`,
		"checkpoint: {interval: often}\n":     `checkpoint: interval: "often" is neither auto, nor a time such as 10m`,
		"checkpoint: {interval: 0 steps}\n":   `interval: "0 steps" is not a number of steps`,
		"checkpoint: {best: loss}\n":          `best: "loss" is not like loss:min`,
		"checkpoint: {push: 0}\n":             `push: "0" is neither all`,
		"checkpoint: {every: [1]}\n":          `expected one value, not a list`,
		"checkpoint: 3\n":                     `"3" is not of the form NAME=VALUE`,
		"- a\n":                               `not a job file`,
		"gpus: [1\n":                          `not valid YAML`,
		"command: [a]\nscript: b\n":           `either command or script`,
		"env: [A]\n":                          `expected NAME: "value" pairs, not a list`,
		strings.Repeat("# x\n", MaxBytes/3):   `a job file has at most`,
		"time_limit: -5s\n":                   `is not a duration`,
		"cpus_per_gpu: lots\nretries: 1.5\n":  `line 2, column 10: retries: "1.5" is not a whole number`,
	} {
		_, err := Parse("f", []byte(file))
		if file == "gpus: 1\ngpus: 2\n" {
			if err == nil || !strings.Contains(err.Error(), "gpus") {
				t.Errorf("a field given twice: got %v", err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q:\n got %v\nwant %s", file, err, want)
		}
	}
}

func TestFlagsCoverEveryScalarField(t *testing.T) {
	t.Parallel()
	spec := &schedulerv1.JobSpec{}
	for _, f := range Fields() {
		if !f.IsFlag() {
			continue
		}
		if err := f.Set(spec, "?"); err != nil && !strings.HasPrefix(err.Error(), "--"+f.Flag()+": ") {
			t.Errorf("%s: error does not name the flag: %v", f.Name, err)
		}
	}
	if err := SetEnv(spec, "A=b=c"); err != nil || spec.GetEnv()[0].GetValue() != "b=c" {
		t.Fatalf("%v %v", spec.GetEnv(), err)
	}
	if SetEnv(spec, "A") == nil {
		t.Fatal("a variable without = is accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("gpus: 1\ncommand: [a]\nenv: {A: b}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if spec, err := Parse("f", data); err == nil && spec == nil {
			t.Fatal("no spec and no error")
		}
	})
}
