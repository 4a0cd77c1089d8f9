package worker

import "time"

// State is where a worker is in its life.
type State string

// The states of a worker, in the order in which they follow each other; Stopping may be skipped.
const (
	// Starting: the spec is on disk; the process may or may not exist yet.
	Starting State = "starting"
	// Running: the process was started.
	Running State = "running"
	// Stopping: a stop was asked for, the main process has ended and left others behind, or the supervisor vanished
	// and its processes are being killed. Processes may still hold the GPUs.
	Stopping State = "stopping"
	// Exited: no process is left and the logs are complete.
	Exited State = "exited"
)

// Status is what is known of one worker. It is a plain value: the receiver may keep and change it.
type Status struct {
	Key    Key               `json:"key"`
	State  State             `json:"state"`
	GPUs   []string          `json:"gpus,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`

	// PID is the worker's main process and its process group; 0 before the start and after a launch failure.
	PID int `json:"pid,omitempty"`
	// StartTicks is the kernel's start time of PID (clock ticks since boot); with BootID it tells PID from a later
	// process of the same number.
	StartTicks    uint64 `json:"start_ticks,omitempty"`
	BootID        string `json:"boot_id,omitempty"`
	SupervisorPID int    `json:"supervisor_pid,omitempty"`

	// LaunchedAt is when the agent asked; StartedAt when the process existed; ExitedAt when its main process ended.
	LaunchedAt time.Time `json:"launched_at,omitzero"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	ExitedAt   time.Time `json:"exited_at,omitzero"`

	// ExitCode is the worker's own exit code, 0 to 255; -1 when it was killed by a signal, never started, or Lost.
	// It means nothing before Exited.
	ExitCode int `json:"exit_code"`
	// Signal is the name of the signal that killed the main process, or "".
	Signal string `json:"signal,omitempty"`
	// Reason is a sentence for people: why the worker is in this state.
	Reason string `json:"reason,omitempty"`
	// LaunchError is set if the command could not be started at all, and says what to do. It tells a missing command
	// from a worker that itself exits 127.
	LaunchError string `json:"launch_error,omitempty"`
	// Lost: the exit status is unknown because the supervisor vanished (machine restarted, or supervisor killed).
	Lost bool `json:"lost,omitempty"`

	// StopRequestedAt and StopReason are set by the first Stop; an exit after it counts as stopped on request.
	StopRequestedAt time.Time `json:"stop_requested_at,omitzero"`
	StopReason      string    `json:"stop_reason,omitempty"`

	// UserSeconds and SystemSeconds are the CPU time of all processes of the worker that were waited for.
	UserSeconds   float64 `json:"user_seconds,omitempty"`
	SystemSeconds float64 `json:"system_seconds,omitempty"`
	// MaxRSSBytes is the largest resident size of any single process (not the sum); never under about 10 MB,
	// because the kernel counts the moment between fork and exec.
	MaxRSSBytes int64 `json:"max_rss_bytes,omitempty"`
	// DroppedLogBytes counts output that could not be written to the log files (disk full).
	DroppedLogBytes int64 `json:"dropped_log_bytes,omitempty"`

	// Durable: the exit is on disk. Exited and not Durable means that the disk refuses the write; it is retried.
	Durable bool `json:"durable,omitempty"`
	// Acked: Manager.Ack was called; the worker may be collected.
	Acked bool `json:"acked,omitempty"`
}

// Stopped reports whether a stop had been asked for before the worker ended.
func (s Status) Stopped() bool { return !s.StopRequestedAt.IsZero() }

// Succeeded reports whether the worker ended by itself with exit code 0. An exit 0 after a Stop is not a success of
// the job: it is a worker that obeyed.
func (s Status) Succeeded() bool {
	return s.State == Exited && s.ExitCode == 0 && !s.Lost && s.LaunchError == "" && !s.Stopped()
}
