package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// authority signs the certificates of one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.cert, a.key = a.sign("ca", nil)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(name string, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signer := a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// as is the TLS identity of a server, agent or person, for both directions.
func (a *authority) as(name string) credentials.TransportCredentials {
	cert, key := a.sign(name, a.cert)
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		RootCAs:      a.pool, ClientCAs: a.pool, ClientAuth: tls.VerifyClientCertIfGiven, ServerName: "cluster", MinVersion: tls.VersionTLS13,
	})
}

// TestIdentityOverTLS follows a person's name through a server that forwards.
func TestIdentityOverTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m := newModel(t)
	n := &network{listeners: map[string]*bufconn.Listener{}}
	servers := []Server{{ID: "s1"}, {ID: "s2"}}
	dialAs := func(name string) []grpc.DialOption {
		return []grpc.DialOption{grpc.WithContextDialer(n.dial), grpc.WithTransportCredentials(ca.as(name))}
	}
	for _, s := range servers {
		r := &replica{model: m, id: s.ID}
		hub := NewHub(HubConfig{Replica: r, ServerID: s.ID, Logger: quiet()})
		svc := NewService(Config{Replica: r, ServerID: s.ID, Servers: servers, Logger: quiet(), DialOptions: dialAs(s.ID)}, hub)
		srv := grpc.NewServer(append(svc.ServerOptions(), grpc.Creds(ca.as(s.ID)))...)
		Register(srv, svc, hub)
		stop := n.serve(s.ID, srv)
		t.Cleanup(func() {
			svc.Close()
			stop()
		})
	}
	clientOf := func(name, server string) schedulerv1.SchedulerServiceClient {
		conn, err := grpc.NewClient("passthrough:///"+server, dialAs(name)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return schedulerv1.NewSchedulerServiceClient(conn)
	}
	ctx := within(t)
	for _, server := range []string{"s1", "s2"} {
		req := submitRequest("by-" + server)
		req.User = "mallory"
		got, err := clientOf("eve", server).SubmitJob(ctx, req)
		if err != nil || got.GetJob().GetUser() != "eve" {
			t.Errorf("by %s: user %q, %v: want eve", server, got.GetJob().GetUser(), err)
		}
	}
	// A person who pretends to be a forwarding server is not believed.
	req := submitRequest("forged")
	req.User = "mallory"
	got, err := clientOf("eve", "s1").SubmitJob(metadata.AppendToOutgoingContext(ctx, forwardedKey, "s2"), req)
	if err != nil || got.GetJob().GetUser() != "eve" {
		t.Errorf("forged: user %q, %v: want eve", got.GetJob().GetUser(), err)
	}
	// Plain text does not get in.
	conn, err := grpc.NewClient("passthrough:///s1", n.options()...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = schedulerv1.NewSchedulerServiceClient(conn).GetCluster(ctx, &schedulerv1.GetClusterRequest{})
	wantStatus(t, err, codes.Unavailable)
}
