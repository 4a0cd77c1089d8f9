package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Report is what the demo measured. Its JSON is stable: scripts read it.
type Report struct {
	Schedulers              int         `json:"schedulers"`
	Nodes                   int         `json:"nodes"`
	GPUs                    int         `json:"gpus"`
	Jobs                    []JobReport `json:"jobs"`
	LeaderKills             int         `json:"leader_kills"`
	NodeKills               int         `json:"node_kills"`
	WorkersLostToLeaderKill int         `json:"workers_lost_to_leader_kill"` // workers alive before the kill and neither alive nor properly ended after it
	WorkersAtLeaderKill     int         `json:"workers_at_leader_kill"`
	FailoverMS              int64       `json:"failover_ms"` // SIGKILL of the leader to the next accepted submit
	StepsRepeated           int64       `json:"steps_repeated"`
	ResumedFromStep         int64       `json:"resumed_from_step"`
	StepAtNodeKill          int64       `json:"step_at_node_kill"`
	ModelHash               string      `json:"model_hash"`       // of the trained model, low 32 bits
	ModelHashAlone          string      `json:"model_hash_alone"` // of the same training in one process, never interrupted
	RecoveryMS              int64       `json:"recovery_ms"`      // SIGKILL of the node to the digits job running again
	Seconds                 float64     `json:"seconds"`
	CleanedUp               bool        `json:"cleaned_up"`
	Problems                []string    `json:"problems"` // empty if all that the demo shows held
}

// JobReport is one job's end.
type JobReport struct {
	ID           uint64   `json:"id"`
	Name         string   `json:"name"`
	State        string   `json:"state"`
	GPUs         int32    `json:"gpus"`
	Epochs       uint64   `json:"epochs"` // how often it was launched
	TestAccuracy *float64 `json:"test_accuracy,omitempty"`
	Steps        int64    `json:"steps,omitempty"`
	WaitS        float64  `json:"wait_s"`
	JCTS         float64  `json:"jct_s"`
}

// WantAccuracy is the test accuracy that the digits job must reach.
const WantAccuracy = 0.96

// maxFailover is the most time without a leader that the demo accepts.
const maxFailoverMS = 10_000

// judge lists what did not hold.
func (r *Report) judge() {
	bad := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	var digits *JobReport
	for i := range r.Jobs {
		if r.Jobs[i].Name == "digits" {
			digits = &r.Jobs[i]
		}
		if r.Jobs[i].State != "Succeeded" {
			bad("job %d %s is %s", r.Jobs[i].ID, r.Jobs[i].Name, r.Jobs[i].State)
		}
	}
	switch {
	case digits == nil:
		bad("there is no digits job")
	case digits.TestAccuracy == nil:
		bad("the digits job reported no test accuracy")
	case *digits.TestAccuracy < WantAccuracy:
		bad("the digits job reached a test accuracy of %.4f, not %.2f", *digits.TestAccuracy, WantAccuracy)
	case digits.Epochs != 2:
		bad("the digits job was launched %d times, not 2: once, and once after its node was killed", digits.Epochs)
	}
	if r.LeaderKills != 1 || r.NodeKills != 1 {
		bad("%d leaders and %d nodes were killed, not 1 and 1", r.LeaderKills, r.NodeKills)
	}
	if r.WorkersLostToLeaderKill != 0 || r.WorkersAtLeaderKill == 0 {
		bad("of %d workers, %d were lost when the leader was killed", r.WorkersAtLeaderKill, r.WorkersLostToLeaderKill)
	}
	if r.FailoverMS <= 0 || r.FailoverMS > maxFailoverMS {
		bad("the cluster accepted no submit for %d ms after its leader was killed", r.FailoverMS)
	}
	if r.ResumedFromStep <= 0 {
		bad("the digits job did not resume from a checkpoint")
	}
	if r.ModelHash == "" || r.ModelHash != r.ModelHashAlone {
		bad("the model is %s, and %s when trained by one process without interruption", r.ModelHash, r.ModelHashAlone)
	}
	if !r.CleanedUp {
		bad("processes or files were left behind")
	}
}

// err joins the problems into one error, or nil.
func (r *Report) err() error {
	var errs []error
	for _, p := range r.Problems {
		errs = append(errs, errors.New(p))
	}
	return errors.Join(errs...)
}

// write writes the report as JSON.
func (r *Report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
