package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// strangersStream is a stream of which nothing but the caller is looked at.
type strangersStream struct {
	grpc.BidiStreamingServer[agentv1.ConnectRequest, agentv1.ConnectResponse]
	ctx context.Context
}

func (s *strangersStream) Context() context.Context { return s.ctx }

// TestUsersAreNoAgents: a certificate that is for clients only does not make
// its owner an agent, who would be given jobs with their environment.
func TestUsersAreNoAgents(t *testing.T) {
	t.Parallel()
	if err := checkAgentCert(context.Background()); err != nil {
		t.Errorf("plain text: %v", err)
	}
	for name, c := range map[string]struct {
		usage []x509.ExtKeyUsage
		ok    bool
	}{
		"client":            {[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, false},
		"client and server": {[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, true},
		"any":               {[]x509.ExtKeyUsage{x509.ExtKeyUsageAny}, true},
		"not stated":        {nil, true},
	} {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: "ada"}, ExtKeyUsage: c.usage}
		ctx := peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{
			State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}},
		}})
		err := checkAgentCert(ctx)
		if c.ok {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			err = NewHub(HubConfig{Logger: quiet()}).Connect(&strangersStream{ctx: ctx})
		}
		t.Run(name, func(t *testing.T) { wantStatus(t, err, codes.PermissionDenied, "ada", "serverAuth") })
	}
}

// TestWorkersTextSteersNoTerminal: what a worker says is one plain line.
func TestWorkersTextSteersNoTerminal(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 2)
	id := m.submit(nil)
	m.start(id, "a:0", "a:1")
	w := exited(1, 1, 0, 1)
	w.Message = "boom\x1b[2J\nat line 3"
	w.Checkpoint = &agentv1.Checkpoint{Step: 1, Path: "/c/\x1b[2J"}
	w.Progress = &agentv1.Progress{Metrics: map[string]float64{"a\n": 1, "b": 2}}
	cmds := control.News(m.State(), "a", statusesFromProto([]*agentv1.WorkerStatus{w}, 0), nil)
	if len(cmds) != 1 {
		t.Fatalf("got %v, want a report without a checkpoint", cmds)
	}
	r := cmds[0].(*cluster.ReportWorkers).Workers[0]
	if r.Message != "boom [2J at line 3" || len(r.Progress.Metrics) != 1 {
		t.Errorf("got %q, %v", r.Message, r.Progress)
	}
}
