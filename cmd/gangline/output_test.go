package main

import (
	"bytes"
	"testing"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// TestJSONIsStable: equal values give equal bytes in every build.
func TestJSONIsStable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{out: &out}
	if err := a.printJSON(&schedulerv1.Worker{Rank: 1, GpuUuids: []string{"a", "b"}}); err != nil {
		t.Fatal(err)
	}
	want := `{"rank":1,"node_id":"","gpu_uuids":["a","b"],"state":"WORKER_STATE_UNSPECIFIED","exit_code":0,"signal":0,"message":"","node_name":""}` + "\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
}

// TestFailedCode: a job ends with the code of the worker that is to blame.
func TestFailedCode(t *testing.T) {
	t.Parallel()
	workers := []*schedulerv1.Worker{{Rank: 0, ExitCode: 9}, {Rank: 1, Signal: 9}, {Rank: 2, ExitCode: 5}, {Rank: 3}}
	for reason, want := range map[string]int{
		"rank 2 on node a exited with code 5 (0 retries allowed)": 5,
		"rank 1 on node a was ended by signal 9: killed":          137,
		"rank 3 on node a was lost":                               1,
		"rank 7 on node a exited with code 5":                     1,
		"reached its time limit of 1s":                            1,
		"":                                                        1,
	} {
		if got := failedCode(&schedulerv1.Job{Reason: reason, Workers: workers}); got != want {
			t.Errorf("%q: code %d, want %d", reason, got, want)
		}
	}
}

// TestUnreachable: what gRPC says becomes what a person can act on; a server's own words stay.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	for msg, want := range map[string]string{
		"no server leads the cluster now": "no server leads the cluster now",
		`latest balancer error: connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`: `no server answers (dial tcp 127.0.0.1:1: connect: connection refused): is one running there? Name the servers with --server or GANGLINE_SERVER; "gangline dev" starts one`,
		`connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate"`:                            "no server answers (authentication handshake failed: tls: failed to verify certificate): the servers and this client do not trust each other's TLS certificates: check --tls-ca, --tls-cert and --tls-key",
		`connection error: desc = "error reading server preface: EOF"`:                                                                        "no server answers (error reading server preface: EOF): it ended the connection at once: if the cluster uses TLS, check --tls-ca, --tls-cert and --tls-key",
	} {
		if got := unreachable(msg); got != want {
			t.Errorf("%q:\n got %s\nwant %s", msg, got, want)
		}
	}
}
