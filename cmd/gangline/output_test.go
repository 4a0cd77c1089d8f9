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
	if err := a.printJSON(&schedulerv1.WatchJobsRequest{JobIds: []uint64{1, 2}}); err != nil {
		t.Fatal(err)
	}
	want := `{"from_index":"0","job_ids":["1","2"]}` + "\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
}

// TestFailedCode: a job ends with the code of the worker that is to blame.
func TestFailedCode(t *testing.T) {
	t.Parallel()
	for want, blamed := range map[int]*schedulerv1.Worker{
		5:   {Rank: 1, ExitCode: 5, Blamed: true},
		137: {Rank: 1, Signal: 9, Blamed: true},
		1:   {Rank: 1, ExitCode: 5}, // nobody is to blame
	} {
		job := &schedulerv1.Job{Workers: []*schedulerv1.Worker{{Rank: 0, ExitCode: 9}, blamed, {Rank: 2, Signal: 15}}}
		if got := failedCode(job); got != want {
			t.Errorf("%v: code %d, want %d", blamed, got, want)
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
