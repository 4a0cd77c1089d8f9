package nodeagent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// writeTLS makes a certificate authority and a certificate for 127.0.0.1 that serves both ends.
func writeTLS(t *testing.T) TLS {
	t.Helper()
	dir := t.TempDir()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	write := func(name, kind string, der []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	files := TLS{CAFile: write("ca.pem", "CERTIFICATE", authorityDER, err)}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, &leafKey.PublicKey, authorityKey)
	files.CertFile = write("cert.pem", "CERTIFICATE", leafDER, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	files.KeyFile = write("key.pem", "PRIVATE KEY", keyDER, err)
	return files
}

func TestTLSBothWays(t *testing.T) {
	t.Parallel()
	files := writeTLS(t)
	secure, err := newTransport(files)
	if err != nil {
		t.Fatal(err)
	}
	s := newScheduler(t, secure.serve...)
	cfg := testConfig(t, s)
	cfg.TLS = files
	r := start(t, cfg)
	s.order(1, 1, r.script(1, 1, "echo secret"))
	s.awaitWorker("1-1-0", isExited)
	if got := r.output("1-1-0", nil); got != "secret\n" {
		t.Errorf("output over TLS: %q", got)
	}
	r.transport.dial = grpc.WithTransportCredentials(insecure.NewCredentials())
	if got := r.output("1-1-0", nil); !strings.Contains(got, "Unavailable") {
		t.Errorf("a caller without a certificate got %q", got)
	}
	for _, bad := range []TLS{{CAFile: "/nowhere"}, {CAFile: files.KeyFile}, {CertFile: files.CAFile, KeyFile: files.KeyFile}} {
		if _, err := newTransport(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestKeepNewest(t *testing.T) {
	t.Parallel()
	now := time.Now()
	exits := []time.Time{now.Add(-3 * time.Hour), now.Add(-time.Hour), now.Add(-2 * time.Hour)}
	for limit, want := range map[int]time.Duration{3: 24 * time.Hour, 2: 2 * time.Hour, 1: time.Hour} {
		if got := keepNewest(exits, limit, 24*time.Hour, now); got != want {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
	}
}
