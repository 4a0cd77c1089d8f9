package jobfile

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
		"gpus: 8\ngpu: 3\n":                  `f: line 2, column 1: unknown field "gpu" (did you mean "gpus"?): allowed are name, queue,`,
		"memory_per_gpu: 64\n":               `f: line 1, column 17: memory_per_gpu: "64" is not a size with a unit: write it like 64GiB`,
		"memory_per_gpu: 64Gib\n":            `allowed units: KiB MiB`,
		"a: 1\ntime_limit: 90\n":             `line 2, column 13: time_limit: "90" is not a duration with a unit: write it like 90s`,
		"gpus: many\n":                       `line 1, column 7: gpus: "many" is not a whole number of GPUs, 1 or more`,
		"gpus: {min: 1, max: 2}\n":           `elastic gangs {min, max} are not supported by this release`,
		"array: 0-9\n":                       `field "array" (job arrays) is not supported by this release: remove it`,
		"command: python train.py\n":         `expected a list such as [python, train.py]`,
		"launch: both\n":                     `allowed are per-gpu and per-node`,
		"gpus: 1\ngpus: 2\n":                 `gangline`, // replaced below: YAML itself may refuse duplicate keys
		"priority: 101\n":                    `"101" is not a whole number in 0..100`,
		"checkpoint: {every: 5}\n":           `unknown field "every" of checkpoint: allowed is keep`,
		"- a\n":                              `not a job file`,
		"gpus: [1\n":                         `not valid YAML`,
		"command: [a]\nscript: b\n":          `either command or script`,
		"env: [A]\n":                         `expected NAME: "value" pairs, not a list`,
		strings.Repeat("# x\n", MaxBytes/3):  `a job file has at most`,
		"time_limit: -5s\n":                  `is not a duration`,
		"cpus_per_gpu: lots\nretries: 1.5\n": `line 2, column 10: retries: "1.5" is not a whole number`,
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
