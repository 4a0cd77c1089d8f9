package main

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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestTLS: servers, an agent and the command line work with certificates of
// one CA, and who has none of it is refused.
func TestTLS(t *testing.T) {
	t.Parallel()
	good := newIdentity(t, "good")
	c := newTestCluster(t, shape{servers: 3, agents: 1, gpus: 2, tls: good})
	r := c.cli("run", "--", "sh", "-c", "echo over TLS")
	if r.code != 0 || r.out != "[0] over TLS\n" {
		t.Errorf("run: %+v", r)
	}
	c.must("nodes")

	stranger := newIdentity(t, "stranger")
	var strangers sync.WaitGroup
	for name, flags := range map[string][]string{
		"no TLS":                        nil,
		"no certificate":                {"--tls-ca", good.ca},
		"a certificate of another CA":   {"--tls-ca", good.ca, "--tls-cert", stranger.cert, "--tls-key", stranger.key},
		"another CA to check by":        {"--tls-ca", stranger.ca, "--tls-cert", good.cert, "--tls-key", good.key},
		"another identity and CA alike": {"--tls-ca", stranger.ca, "--tls-cert", stranger.cert, "--tls-key", stranger.key},
	} {
		strangers.Go(func() {
			// Time for a handshake on a busy machine: whoever is refused goes on trying until it is over.
			r := runCLI(slices.Concat([]string{"--server", c.address(), "--timeout", "5s"}, flags, []string{"jobs"})...)
			if r.code != exitUnavailable || r.out != "" || !strings.Contains(r.err, "TLS") {
				t.Errorf("%s: %+v: want a refusal that says that it is about TLS", name, r)
			}
		})
	}
	strangers.Wait()
	// An agent that could only serve its logs in plain text does not start.
	if r := runCLI("agent", "--tls-ca", good.ca, "--listen", "0.0.0.0:0", "--gpus", "none", "--state-dir", t.TempDir()); r.code != exitUsage {
		t.Errorf("an agent without a certificate: %+v", r)
	}
}

// newIdentity makes a CA and one certificate of it, good for loopback.
func newIdentity(t *testing.T, name string) tlsFlags {
	t.Helper()
	dir := t.TempDir()
	template := func(cn string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	ca := template(name + " CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf := template(name)
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	caKey, leafKey := newKey(t), newKey(t)
	f := tlsFlags{ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	writeCertificate(t, f.ca, ca, ca, caKey, caKey)
	writeCertificate(t, f.cert, leaf, ca, leafKey, caKey)
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, f.key, "PRIVATE KEY", der)
	return f
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writeCertificate(t *testing.T, path string, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, path, "CERTIFICATE", der)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
