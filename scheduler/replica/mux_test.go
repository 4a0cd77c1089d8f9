package replica

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func newTestMux(t *testing.T, cfg MuxConfig) *Mux {
	t.Helper()
	cfg.Logger = quiet()
	m := NewMux(listen(t), cfg)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close mux: %v", err)
		}
	})
	return m
}

func accepted(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func dial(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestMuxSortsByFirstByte(t *testing.T) {
	t.Parallel()
	m := newTestMux(t, MuxConfig{})
	for range 50 { // silent clients, first in line
		dial(t, m.GRPC().Addr())
	}
	for _, greeting := range []string{"PRI * HTTP/2.0\r\n", "\x16\x03\x01", "GET / HTTP/1.1\r\n"} {
		c := dial(t, m.GRPC().Addr())
		if _, err := c.Write([]byte(greeting)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(greeting))
		if _, err := io.ReadFull(accepted(t, m.GRPC()), got); err != nil || string(got) != greeting {
			t.Errorf("API half got %q, %v; want %q", got, err, greeting)
		}
	}
	c, err := m.Raft().Dial(raft.ServerAddress(m.Raft().Addr().String()), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(accepted(t, m.Raft()), got); err != nil || string(got) != "hello" {
		t.Errorf("Raft half got %q, %v; want hello without the marker", got, err)
	}
}

func TestMuxDropsOldestHalfOpen(t *testing.T) {
	t.Parallel()
	m := newTestMux(t, MuxConfig{})
	oldest := dial(t, m.GRPC().Addr())
	for range maxHalfOpen + 8 {
		dial(t, m.GRPC().Addr())
	}
	_ = oldest.SetReadDeadline(time.Now().Add(firstByteTimeout / 2)) // before its own time is up
	if _, err := oldest.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		var reset *net.OpError
		if !errors.As(err, &reset) || reset.Timeout() {
			t.Errorf("oldest silent connection: %v, want it closed", err)
		}
	}
	late := dial(t, m.GRPC().Addr())
	if _, err := late.Write([]byte("P")); err != nil {
		t.Fatal(err)
	}
	accepted(t, m.GRPC())
}

func TestMuxHalvesCloseAlone(t *testing.T) {
	t.Parallel()
	m := newTestMux(t, MuxConfig{})
	if err := m.Raft().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Raft().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept on the closed half: %v", err)
	}
	c := dial(t, m.GRPC().Addr())
	if _, err := c.Write([]byte("P")); err != nil {
		t.Fatal(err)
	}
	accepted(t, m.GRPC())
}

// authority signs certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	return a
}

func sign(t *testing.T, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// config trusts this authority and shows a certificate of the given one.
func (a *authority) config(t *testing.T, shown *authority) *tls.Config {
	t.Helper()
	cert, key := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, shown)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		RootCAs:      pool, ClientCAs: pool, MinVersion: tls.VersionTLS13,
	}
}

func TestMuxTLSIsMutual(t *testing.T) {
	t.Parallel()
	good, bad := newAuthority(t), newAuthority(t)
	server := newTestMux(t, MuxConfig{TLS: good.config(t, good)})
	address := raft.ServerAddress(server.Raft().Addr().String())

	peer := newTestMux(t, MuxConfig{TLS: good.config(t, good)})
	c, err := peer.Raft().Dial(address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(accepted(t, server.Raft()), got); err != nil || string(got) != "hi" {
		t.Errorf("got %q, %v", got, err)
	}

	stranger := newTestMux(t, MuxConfig{TLS: good.config(t, bad)}) // trusts the server, is not trusted
	c, err = stranger.Raft().Dial(address, 5*time.Second)
	if err == nil { // in TLS 1.3 the client learns of it with its first read
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = c.Read(got)
		_ = c.Close()
	}
	if err == nil {
		t.Error("a peer with a foreign certificate was let in")
	}

	trusting := newTestMux(t, MuxConfig{TLS: bad.config(t, good)}) // does not trust the server
	if c, err := trusting.Raft().Dial(address, 5*time.Second); err == nil {
		_ = c.Close()
		t.Error("a server with a foreign certificate was trusted")
	}

	plain := newTestMux(t, MuxConfig{})
	c, err = plain.Raft().Dial(address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("not TLS at all")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var timeout net.Error
	if _, err := io.ReadAll(c); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("a connection without TLS was not closed")
	}
}
