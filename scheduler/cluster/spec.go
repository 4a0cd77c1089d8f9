package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits of a job's spec. They bound what one log entry, one assignment and
// one line of a table can hold.
const (
	MaxNameLen     = 128
	MaxGPUs        = 1 << 14 // of one gang: a gang starts by one command, which must fit into one log entry
	MaxArgs        = 4096
	MaxEnv         = 1024
	MaxSpecBytes   = 256 << 10 // command, environment and script together
	MaxRetries     = 1000
	MinPriority    = 0
	MaxPriority    = 100
	DefaultQueue   = "default"
	DefaultGrace   = 10 * time.Second
	DefaultWarn    = 30 * time.Second
	MaxStopTime    = 24 * time.Hour
	DefaultPrio    = 50
	maxQueueDepth  = 16
	maxGPUTypeLen  = 64
	maxGPUTypes    = 32
	maxTimeLimit   = 10 * 365 * 24 * time.Hour
	maxMemPerGPU   = 1 << 50
	maxMilliPerGPU = 1 << 30
	// WholeGPU is a GPU in the unit of shares.
	WholeGPU = 1000
	// MaxArray bounds the members of one array: they are made by one command.
	MaxArray        = 10_000
	maxSelectors    = 32
	maxTolerations  = 32
	maxLevelNameLen = 64
)

// LaunchMode says how many processes a node starts for a job.
type LaunchMode uint8

// Launch modes. The zero value is invalid in a stored spec.
const (
	LaunchPerGPU  LaunchMode = 1 // one process for each GPU
	LaunchPerNode LaunchMode = 2 // one launcher for each node
)

// OnFailure says what becomes of a gang of which a worker has failed.
type OnFailure uint8

// What can become of it.
const (
	// FailureRestarts stops the others, and starts the gang again.
	FailureRestarts OnFailure = 0
	// FailureShrinks lets the others go on, as long as they are as many as an elastic gang may be; they form a new ring by themselves. While
	// Retries last, a worker that failed of itself is started again, and joins them.
	FailureShrinks OnFailure = 1
)

// EnvVar is one environment variable of a worker.
type EnvVar struct {
	Name, Value string
}

// JobSpec is what a user asks for. It never changes after submission, so a
// State and its snapshots share one.
type JobSpec struct {
	Name        string        // 1..MaxNameLen bytes
	Queue       string        // path such as "research/vision"
	Priority    int32         // MinPriority..MaxPriority, higher first
	GPUs        int32         // size of the gang, 1..MaxGPUs; of an elastic one, its largest
	MinGPUs     int32         // smallest size of an elastic gang, 1..GPUs; 0: rigid, always GPUs
	GPUMilli    int32         // share of one GPU in thousandths, 1..999, with GPUs 1; 0: whole GPUs
	GPUsPerNode int32         // exactly this many on each node; 0: the planner chooses
	Retries     int32         // failures after which it is started again; lost nodes do not count
	KeepCkpts   int32         // checkpoints to keep; 0: the library's default
	OnFailure   OnFailure     // whether the gang starts again or goes on without the worker
	Launch      LaunchMode    // one process for each GPU, or one for each node
	Preemptible bool          // it may be stopped so that another job can start, and may run on borrowed GPUs
	GPUTypes    []string      // acceptable types, preferred first; empty: any. A gang is of one type
	CPUPerGPU   int64         // thousandths of a CPU; 0: none reserved
	MemPerGPU   int64         // bytes; 0: none reserved
	TimeLimit   time.Duration // of one epoch, from its start; 0: none
	Warn        time.Duration // warning signal to SIGTERM
	Grace       time.Duration // SIGTERM to SIGKILL
	Command     []string      // at least one
	Env         []EnvVar      // in the order given
	Dir         *string       // working directory on the node; nil: the worker's own. A pointer, as few name any
	Topology    TopologyWish
	Selector    []Label  // labels that each node must have
	Tolerations []string // taints that it bears, each "key" or "key=value"
	Array       ArraySpec
	After       *Conditions       // nil: it need not wait for other jobs. A pointer: few jobs have any, and a hundred thousand may wait
	Checkpoints *CheckpointPolicy // nil: the program decides when it saves, and only KeepCkpts holds
}

// WorkDir is the working directory on the node, empty for the worker's own.
func (s *JobSpec) WorkDir() string {
	if s.Dir == nil {
		return ""
	}
	return *s.Dir
}

// TopologyWish asks for a gang within one domain of a level, such as one rack.
type TopologyWish struct {
	Level    string // a level of the policy's topology, or "node"; empty: no wish
	Required bool   // true: it waits for such a place; false: it prefers one
}

// ArraySpec makes one job for each index First, First+Step ... up to Last. The
// members share the spec and are scheduled independently. The zero ArraySpec
// makes a single job.
type ArraySpec struct {
	First, Last, Step int32 // Step 0: not an array
	Parallel          int32 // members that may hold GPUs at once; 0: no bound
}

// Count is the number of jobs that the spec makes.
func (a *ArraySpec) Count() int32 {
	if a.Step <= 0 || a.Last < a.First {
		return 1
	}
	return (a.Last-a.First)/a.Step + 1
}

// Elastic reports whether the gang may have fewer GPUs than it would like.
func (s *JobSpec) Elastic() bool { return s.MinGPUs > 0 && s.MinGPUs < s.GPUs }

// Least is the smallest number of GPUs with which the job may start.
func (s *JobSpec) Least() int32 {
	if s.Elastic() {
		return s.MinGPUs
	}
	return s.GPUs
}

// Share is what the job takes of each of its GPUs, in thousandths.
func (s *JobSpec) Share() int32 {
	if s.GPUMilli > 0 {
		return s.GPUMilli
	}
	return WholeGPU
}

// Shared reports whether the job takes less than a whole GPU.
func (s *JobSpec) Shared() bool { return s.GPUMilli > 0 && s.GPUMilli < WholeGPU }

// Normalize fills in the defaults that a client may leave out.
func (s *JobSpec) Normalize() {
	if s.Queue == "" {
		s.Queue = DefaultQueue
	}
	if s.Launch == 0 {
		s.Launch = LaunchPerGPU
	}
}

// Validate returns every problem of the spec at once, joined, or nil. It knows
// nothing of the cluster: whether a gang can ever fit is CanEverFit's question.
func (s *JobSpec) Validate() error {
	errs := make([]error, 0, 8) // of which 5 are nil
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Name == "" || len(s.Name) > MaxNameLen || strings.ContainsFunc(s.Name, control) {
		bad("name: must be 1 to %d bytes without control characters, is %q", MaxNameLen, s.Name[:min(len(s.Name), MaxNameLen)])
	}
	if err := validateQueue(s.Queue); err != nil {
		errs = append(errs, err)
	}
	if s.Priority < MinPriority || s.Priority > MaxPriority {
		bad("priority: %d is not in %d..%d (higher starts first)", s.Priority, MinPriority, MaxPriority)
	}
	if s.GPUs < 1 || s.GPUs > MaxGPUs {
		bad("gpus: %d is not in 1..%d", s.GPUs, MaxGPUs)
	}
	if s.GPUsPerNode < 0 || (s.GPUsPerNode > 0 && s.GPUs%s.GPUsPerNode != 0) {
		bad("gpus_per_node: %d does not divide gpus %d", s.GPUsPerNode, s.GPUs)
	}
	errs = append(errs, s.validateSize(), s.validatePlace(), s.validateAfter())
	if len(s.GPUTypes) > maxGPUTypes {
		bad("gpu_type: %d types, at most %d", len(s.GPUTypes), maxGPUTypes)
	}
	for _, t := range s.GPUTypes {
		if t == "" || len(t) > maxGPUTypeLen || strings.ContainsFunc(t, control) {
			bad("gpu_type: %.*q must be 1 to %d bytes without control characters, such as h100", maxGPUTypeLen, t, maxGPUTypeLen)
		}
	}
	if s.Launch != LaunchPerGPU && s.Launch != LaunchPerNode {
		bad("launch: must be per-gpu or per-node")
	}
	switch {
	case s.OnFailure > FailureShrinks:
		bad("on_failure: must be restart or shrink")
	case s.OnFailure == FailureShrinks && !s.Elastic():
		bad("on_failure: a gang that is not elastic cannot go on with fewer workers: give gpus as {min: 6, max: 8}")
	case s.OnFailure == FailureShrinks && s.Launch != LaunchPerGPU:
		bad("on_failure: a launcher of its own for each node cannot be replaced: shrink needs launch: per-gpu")
	}
	if s.Retries < 0 || s.Retries > MaxRetries {
		bad("retries: %d is not in 0..%d", s.Retries, MaxRetries)
	}
	return errors.Join(append(errs, s.validateResources(), s.validateCommand())...)
}

// validateSize checks what makes a gang other than rigid, whole and single.
func (s *JobSpec) validateSize() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.MinGPUs < 0 || s.MinGPUs > s.GPUs {
		bad("gpus: min %d is not in 1..max %d", s.MinGPUs, s.GPUs)
	} else if s.MinGPUs > 0 && s.GPUsPerNode > 0 && s.MinGPUs%s.GPUsPerNode != 0 {
		bad("gpus: gpus_per_node %d does not divide min %d", s.GPUsPerNode, s.MinGPUs)
	}
	switch {
	case s.GPUMilli < 0 || s.GPUMilli > WholeGPU:
		bad("gpu_share: %g is not in 0.001..1", float64(s.GPUMilli)/WholeGPU)
	case s.Shared() && s.GPUs != 1:
		bad("gpu_share: a gang of %d GPUs takes whole GPUs: a share is of one GPU", s.GPUs)
	}
	a := &s.Array
	if a.Step < 0 || a.First < 0 || a.Parallel < 0 || (a.Step > 0 && a.Last < a.First) || (a.Step == 0 && *a != ArraySpec{}) {
		bad("array: %d-%d:%d%%%d is not a range such as 0-99 or 0-99:2%%8", a.First, a.Last, a.Step, a.Parallel)
	} else if int64(a.Last)-int64(a.First) >= MaxArray*int64(max(a.Step, 1)) {
		bad("array: more than %d members: submit it in several parts", MaxArray)
	}
	return errors.Join(errs...)
}

// validatePlace checks the wishes for where a gang goes.
func (s *JobSpec) validatePlace() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if l := s.Topology.Level; len(l) > maxLevelNameLen || strings.ContainsFunc(l, control) || (l == "" && s.Topology.Required) {
		bad("topology: level %.*q is not a name such as rack", maxLevelNameLen, l)
	}
	if len(s.Selector) > maxSelectors {
		bad("node_selector: %d labels, at most %d", len(s.Selector), maxSelectors)
	}
	for _, l := range s.Selector {
		if err := validateLabel(l.Key, l.Value); err != nil {
			bad("node_selector: %s", err)
		}
	}
	if len(s.Tolerations) > maxTolerations {
		bad("tolerations: %d, at most %d", len(s.Tolerations), maxTolerations)
	}
	for _, t := range s.Tolerations {
		key, value, _ := strings.Cut(t, "=")
		if err := validateLabel(key, value); err != nil {
			bad("tolerations: %s", err)
		}
	}
	return errors.Join(errs...)
}

func validateLabel(key, value string) error {
	if key == "" || len(key) > MaxNameLen || len(value) > MaxNameLen || strings.ContainsFunc(key+value, control) {
		return fmt.Errorf("%.*q=%.*q: key and value must be at most %d bytes without control characters, and the key not empty",
			MaxNameLen, key, MaxNameLen, value, MaxNameLen)
	}
	return nil
}

// control reports whether a character steers a terminal instead of being
// shown: names and types are shown to everyone.
func control(r rune) bool { return r < 0x20 || (r >= 0x7f && r < 0xa0) }

func (s *JobSpec) validateResources() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.CPUPerGPU < 0 || s.CPUPerGPU > maxMilliPerGPU {
		bad("cpus_per_gpu: %g is out of range", float64(s.CPUPerGPU)/1000)
	}
	if s.MemPerGPU < 0 || s.MemPerGPU > maxMemPerGPU {
		bad("memory_per_gpu: %d bytes is out of range", s.MemPerGPU)
	}
	if s.TimeLimit < 0 || s.TimeLimit > maxTimeLimit {
		bad("time_limit: %s is out of range", s.TimeLimit)
	}
	if s.Warn < 0 || s.Warn > MaxStopTime {
		bad("warn: %s is not in 0..%s", s.Warn, MaxStopTime)
	}
	if s.Grace < 0 || s.Grace > MaxStopTime {
		bad("grace: %s is not in 0..%s", s.Grace, MaxStopTime)
	}
	if s.KeepCkpts < 0 {
		bad("checkpoint.keep: %d is negative", s.KeepCkpts)
	}
	if err := s.Checkpoints.validate(s.KeepCkpts); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *JobSpec) validateCommand() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(s.Command) == 0 || s.Command[0] == "" {
		bad("command: is empty: give the program to run and its arguments")
	}
	if len(s.Command) > MaxArgs {
		bad("command: %d arguments, at most %d", len(s.Command), MaxArgs)
	}
	if len(s.Env) > MaxEnv {
		bad("env: %d variables, at most %d", len(s.Env), MaxEnv)
	}
	size := len(s.WorkDir())
	for _, a := range s.Command {
		size += len(a) + 1
		if strings.ContainsRune(a, 0) {
			bad("command: an argument holds a NUL byte")
		}
	}
	for _, e := range s.Env {
		size += len(e.Name) + len(e.Value) + 2
		if e.Name == "" || strings.ContainsAny(e.Name, "=\x00") || strings.ContainsRune(e.Value, 0) {
			bad("env: %q is not a usable variable name or value", e.Name)
		}
	}
	if size > MaxSpecBytes {
		bad("command, env and dir: %d bytes together, at most %d: put large scripts in a file on shared storage", size, MaxSpecBytes)
	}
	return errors.Join(errs...)
}

func validateQueue(q string) error {
	if len(q) > MaxNameLen || strings.Count(q, "/") >= maxQueueDepth {
		return fmt.Errorf("queue: %q is too long: at most %d bytes and %d levels", q, MaxNameLen, maxQueueDepth)
	}
	for p := range strings.SplitSeq(q, "/") {
		ok := p != ""
		for _, r := range p {
			if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.') {
				ok = false
			}
		}
		if !ok {
			return fmt.Errorf("queue: %q is not a path of names such as research/vision (letters, digits, - _ .)", q)
		}
	}
	return nil
}
