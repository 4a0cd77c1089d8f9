package replica

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// pipeLayer is a stream layer over net.Pipe between named servers.
type pipeLayer struct {
	network map[string]*pipeLayer
	address string
	conns   chan net.Conn
	closed  chan struct{}
}

func newPipeLayer(network map[string]*pipeLayer, address string) *pipeLayer {
	l := &pipeLayer{network: network, address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	network[address] = l
	return l
}

func (l *pipeLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeLayer) Close() error   { close(l.closed); return nil }
func (l *pipeLayer) Addr() net.Addr { return textAddr(l.address) }

func (l *pipeLayer) Dial(address raft.ServerAddress, _ time.Duration) (net.Conn, error) {
	ours, theirs := net.Pipe()
	other := l.network[string(address)]
	select {
	case other.conns <- theirs:
		return ours, nil
	case <-other.closed:
		return nil, net.ErrClosed
	}
}

// greeter is a guard without a Raft behind it.
func greeter(network map[string]*pipeLayer, id, address, clusterID string, servers ...Server) *guard {
	r := newReplica(Config{ID: id, Servers: servers, Logger: quiet(), Events: 1}.withDefaults())
	r.clusterID = clusterID
	return newGuard(r, newPipeLayer(network, address))
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	a, b, c := Server{"a", "a:1"}, Server{"b", "b:1"}, Server{"c", "c:1"}
	for name, test := range map[string]struct {
		id           string   // of the caller, whose address is c:1
		theirs, ours string   // cluster ids: of a, which is called, and of the caller
		callers      []Server // the caller's list
		want         string   // of the caller's error; "": none
	}{
		"same cluster":       {"c", "X", "X", []Server{a, b, c}, ""},
		"caller is new":      {"c", "X", "", []Server{a, b, c}, ""},
		"called one is new":  {"c", "", "X", []Server{a, b, c}, ""},
		"other cluster":      {"c", "X", "Y", []Server{a, b, c}, "server a belongs to cluster X, not to Y"},
		"not a member":       {"z", "X", "X", []Server{a, {"z", "c:1"}}, "server z is not in the list"},
		"same id":            {"a", "X", "X", []Server{{"b", "a:1"}, {"a", "c:1"}}, "server b is meant, but this is a"},
		"addresses mixed up": {"c", "X", "X", []Server{{"b", "a:1"}, c}, "server b is meant, but this is a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				network := map[string]*pipeLayer{}
				called := greeter(network, "a", "a:1", test.theirs, a, b, c)
				caller := greeter(network, test.id, "c:1", test.ours, test.callers...)
				defer func() {
					if err := errors.Join(called.Close(), caller.Close()); err != nil {
						t.Error(err)
					}
				}()
				go func() {
					for {
						if _, err := called.Accept(); err != nil {
							return
						}
					}
				}()
				conn, err := caller.Dial("a:1", time.Second)
				if err == nil {
					defer conn.Close()
				}
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("dial: %v, want %q", err, test.want)
				}
			})
		})
	}
}

// A peer that says nothing is dropped in time, and delays nobody else.
func TestHandshakeSilentPeer(t *testing.T) {
	t.Parallel()
	a, b := Server{"a", "a:1"}, Server{"b", "b:1"}
	synctest.Test(t, func(t *testing.T) {
		network := map[string]*pipeLayer{}
		called := greeter(network, "a", "a:1", "X", a, b)
		caller := greeter(network, "b", "b:1", "X", a, b)
		defer func() {
			if err := errors.Join(called.Close(), caller.Close()); err != nil {
				t.Error(err)
			}
		}()
		silent, err := caller.inner.Dial("a:1", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		got := make(chan error, 1)
		go func() {
			_, err := called.Accept()
			got <- err
		}()
		conn, err := caller.Dial("a:1", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := <-got; err != nil || time.Since(began) != 0 {
			t.Errorf("accept: %v after %s", err, time.Since(began))
		}
		if _, err := silent.Read(make([]byte, 1)); err == nil || time.Since(began) != handshakeTimeout {
			t.Errorf("the silent peer was dropped with %v after %s, want %s", err, time.Since(began), handshakeTimeout)
		}
	})
}

// TestHandshakeCertificate: among the certificates of one CA only a server's
// may speak Raft, as that server.
func TestHandshakeCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	a, b := Server{"a", "10.0.0.1:1"}, Server{"b", "10.0.0.2:1"}
	g := &guard{r: newReplica(Config{ID: "a", Servers: []Server{a, b}, Logger: quiet(), Events: 1}.withDefaults())}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for name, test := range map[string]struct {
		cert x509.Certificate
		ok   bool
	}{
		"names the server's host": {x509.Certificate{IPAddresses: []net.IP{net.IPv4(10, 0, 0, 2)}}, true},
		"names the server's id":   {x509.Certificate{DNSNames: []string{"b"}}, true},
		"common name is the id":   {x509.Certificate{Subject: pkix.Name{CommonName: "b"}}, true},
		"another server's":        {x509.Certificate{IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}, false},
		"a user's":                {x509.Certificate{Subject: pkix.Name{CommonName: "ada"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.cert.SerialNumber, test.cert.ExtKeyUsage = big.NewInt(3), usage
			cert, key := sign(t, &test.cert, ca)
			theirs := ca.config(t, ca)
			theirs.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
			theirs.ServerName = "127.0.0.1"
			ours := ca.config(t, ca)
			ours.ClientAuth = tls.RequireAndVerifyClientCert
			near, far := net.Pipe()
			client, server := tls.Client(near, theirs), tls.Server(far, ours)
			defer near.Close()
			done := make(chan hello, 1)
			go func() {
				defer close(done)
				if err := writeHello(client, hello{from: "b", to: "a"}); err != nil {
					return
				}
				if answer, err := readHello(client); err == nil {
					done <- answer
				}
			}()
			_, err := g.answer(&guardedConn{Conn: server, g: g})
			if answer := <-done; (err == nil) != test.ok || (answer.code == helloOK) != test.ok {
				t.Errorf("answered %+v, %v: want it let in: %v", answer, err, test.ok)
			}
		})
	}
}

func TestHelloRoundTrip(t *testing.T) {
	t.Parallel()
	want := hello{code: helloWrongServer, cluster: "X", from: "a", to: "b", why: strings.Repeat("w", maxHandshakeText)}
	var buf bytes.Buffer
	if err := writeHello(&buf, want); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(buf.Bytes())
	if got, err := readHello(&buf); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for n := range whole {
		if _, err := readHello(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("a greeting of %d bytes of %d was taken", n, len(whole))
		}
	}
	whole[0]++
	if _, err := readHello(bytes.NewReader(whole)); !errors.Is(err, errHandshakeVersion) {
		t.Errorf("other version: %v", err)
	}
}
