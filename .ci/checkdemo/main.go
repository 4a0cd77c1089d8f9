// Command checkdemo reads the report that "gangline demo --report FILE" wrote and says what in it is not as the demo
// promises. Exit status: 0 all holds, 1 something does not, 2 the report cannot be read.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// report is what the demo writes. Numbers are pointers, so that one that is missing cannot pass for zero.
type report struct {
	Schedulers     *int  `json:"schedulers"`
	Nodes          *int  `json:"nodes"`
	GPUs           *int  `json:"gpus"`
	Jobs           []job `json:"jobs"`
	LeaderKills    *int  `json:"leader_kills"`
	NodeKills      *int  `json:"node_kills"`
	LostToLeader   *int  `json:"workers_lost_to_leader_kill"`
	StepsRepeated  *int  `json:"steps_repeated"`
	FailoverMillis *int  `json:"failover_ms"`
}

type job struct {
	ID       json.Number `json:"id"`
	Name     string      `json:"name"`
	State    string      `json:"state"`
	Epochs   int         `json:"epochs"`
	Accuracy *float64    `json:"test_accuracy"`
}

const (
	minAccuracy    = 0.96  // of the digits model on its held-out fifth
	maxFailover    = 15000 // milliseconds; far above the goal, so that a slow build machine does not fail the check
	maxSteps       = 10000 // repeated steps; more than the whole training means that it did not resume
	digitsMinEpoch = 2     // started once, and again after its node was killed
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: checkdemo REPORT.json")
		os.Exit(2)
	}
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "checkdemo: read the report:", err)
		os.Exit(2)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		fmt.Fprintf(os.Stderr, "checkdemo: parse %s: %v\n", os.Args[1], err)
		os.Exit(2)
	}
	problems := check(r)
	for _, p := range problems {
		fmt.Println(p)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
	fmt.Println("the demo's report holds all that it promises")
}

// check returns one sentence for each promise that the report does not keep.
func check(r report) []string {
	var problems []string
	between := func(name string, got *int, low, high int) {
		switch {
		case got == nil:
			problems = append(problems, fmt.Sprintf("%s is missing", name))
		case *got < low || *got > high:
			problems = append(problems, fmt.Sprintf("%s is %d, want %d to %d", name, *got, low, high))
		}
	}
	between("schedulers", r.Schedulers, 3, 3)
	between("nodes", r.Nodes, 4, 4)
	between("gpus", r.GPUs, 32, 32)
	between("leader_kills", r.LeaderKills, 1, 1)
	between("node_kills", r.NodeKills, 1, 1)
	between("workers_lost_to_leader_kill", r.LostToLeader, 0, 0)
	between("steps_repeated", r.StepsRepeated, 0, maxSteps)
	between("failover_ms", r.FailoverMillis, 1, maxFailover)

	digits := 0
	seen := map[string]bool{}
	for _, j := range r.Jobs {
		if seen[j.ID.String()] || j.ID == "" {
			problems = append(problems, fmt.Sprintf("job id %q is empty or there twice", j.ID))
		}
		seen[j.ID.String()] = true
		if j.State != "Succeeded" {
			problems = append(problems, fmt.Sprintf("job %s (%s) is %s, want Succeeded", j.ID, j.Name, j.State))
		}
		if j.Name != "digits" {
			continue
		}
		digits++
		if j.Accuracy == nil || *j.Accuracy < minAccuracy || *j.Accuracy > 1 {
			problems = append(problems, fmt.Sprintf("job %s (digits) lacks a test_accuracy of %v to 1", j.ID, minAccuracy))
		}
		if j.Epochs < digitsMinEpoch {
			problems = append(problems, fmt.Sprintf("job %s (digits) had %d epochs, want %d at least: was its node killed?",
				j.ID, j.Epochs, digitsMinEpoch))
		}
	}
	if digits != 1 || len(r.Jobs) < 2 {
		problems = append(problems, fmt.Sprintf("%d jobs, %d of them digits; want one digits job and a queue of others",
			len(r.Jobs), digits))
	}
	return problems
}
