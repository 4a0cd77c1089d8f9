package grpclink_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce/grpclink"
)

// identity returns a self-signed certificate for loopback and a pool that trusts it.
func identity(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "worker"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	cert, pool := identity(t)
	for _, path := range paths {
		t.Run(string(path), func(t *testing.T) {
			t.Parallel()
			groups := joinAll(t, 3, func(c *grpclink.Config) {
				c.Path = path
				c.ServerTLS = &tls.Config{
					Certificates: []tls.Certificate{cert}, ClientCAs: pool,
					ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
				}
				c.ClientTLS = &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, MinVersion: tls.VersionTLS13}
			})
			defer closeAll(groups)
			var all errgroup.Group
			for r, g := range groups {
				all.Go(func() error { return sumOnce(t.Context(), g, r, 3, 100_000) })
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestTLSForOneDirectionIsRefused(t *testing.T) {
	t.Parallel()
	ls, peers := listeners(t, 2)
	_ = ls[1].Close()
	cfg := config(0, peers, ls[0])
	cfg.ClientTLS = &tls.Config{MinVersion: tls.VersionTLS13}
	if _, err := grpclink.Join(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "one direction only") {
		t.Errorf("Join with ClientTLS only: %v", err)
	}
}
