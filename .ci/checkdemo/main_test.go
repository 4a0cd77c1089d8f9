package main

import (
	"encoding/json"
	"strings"
	"testing"
)

const good = `{"schedulers":3,"nodes":4,"gpus":32,"jobs":[
	{"id":1,"name":"digits","state":"Succeeded","epochs":2,"test_accuracy":0.97},
	{"id":2,"name":"small","state":"Succeeded","epochs":1}],
	"leader_kills":1,"node_kills":1,"workers_lost_to_leader_kill":0,"steps_repeated":12,"failover_ms":800,"more":true}`

// TestCheck breaks one promise after another in a report that keeps them all.
func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, from, to, want string }{
		{"good", "", "", ""},
		{"number missing", `"workers_lost_to_leader_kill":0,`, "", "workers_lost_to_leader_kill is missing"},
		{"worker lost", `leader_kill":0`, `leader_kill":1`, "workers_lost_to_leader_kill is 1"},
		{"accuracy low", "0.97", "0.95", "lacks a test_accuracy"},
		{"accuracy missing", `,"test_accuracy":0.97`, "", "lacks a test_accuracy"},
		{"job failed", `"small","state":"Succeeded"`, `"small","state":"Failed"`, "job 2 (small) is Failed"},
		{"never restarted", `"epochs":2`, `"epochs":1`, "had 1 epochs"},
		{"id twice", `"id":2`, `"id":1`, `job id "1" is empty or there twice`},
		{"no digits", `"digits"`, `"other"`, "0 of them digits"},
		{"no failover", `"failover_ms":800`, `"failover_ms":0`, "failover_ms is 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(good, tt.from, tt.to, 1)
			if tt.want != "" && text == good {
				t.Fatalf("%q is not in the good report", tt.from)
			}
			var r report
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(check(r), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("check found %q, want %q", got, tt.want)
			}
		})
	}
}
