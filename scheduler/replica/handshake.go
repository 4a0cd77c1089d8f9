package replica

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Each Raft connection opens with one question and one answer, so that servers
// of different clusters, or behind a wrong address, refuse each other by name
// before Raft says a word. Both are: version byte, code byte, then the cluster's
// id ("" while unknown), the sender's id and the id of the server that it means
// to talk to, each led by its length in one byte. An answer also says what is
// wrong, in the same way.
const (
	handshakeVersion = 1
	maxHandshakeText = 255
	handshakeTimeout = 5 * time.Second // a server on the same network answers in milliseconds
)

// Codes of an answer.
const (
	helloOK           = 0
	helloWrongCluster = 1
	helloWrongServer  = 2 // not the server that was meant, or not a member
	helloWrongVersion = 3
)

// hello is the question or the answer.
type hello struct {
	code          byte
	cluster, from string
	to            string
	why           string // for people, if code is not helloOK
}

func writeHello(w io.Writer, h hello) error {
	b := []byte{handshakeVersion, h.code}
	for _, s := range []string{h.cluster, h.from, h.to, h.why} {
		s = s[:min(len(s), maxHandshakeText)]
		b = append(append(b, byte(len(s))), s...)
	}
	_, err := w.Write(b)
	return err
}

var errHandshakeVersion = errors.New("the other server speaks another version of the handshake: run the same release on all servers")

func readHello(r io.Reader) (hello, error) {
	var lead [2]byte
	if _, err := io.ReadFull(r, lead[:]); err != nil {
		return hello{}, err
	}
	h := hello{code: lead[1]}
	if lead[0] != handshakeVersion {
		return h, errHandshakeVersion
	}
	for _, s := range []*string{&h.cluster, &h.from, &h.to, &h.why} {
		var n [1]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return h, err
		}
		b := make([]byte, n[0])
		if _, err := io.ReadFull(r, b); err != nil {
			return h, err
		}
		*s = string(b)
	}
	return h, nil
}

// greet asks on a connection that this server opened to the given peer.
func (g *guard) greet(conn net.Conn, to string) (peer hello, err error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return peer, err
	}
	ours := g.r.knownCluster()
	if err := writeHello(conn, hello{cluster: ours, from: g.r.cfg.ID, to: to}); err != nil {
		return peer, fmt.Errorf("greet server %s: %w", to, err)
	}
	peer, err = readHello(conn)
	if err != nil {
		return peer, fmt.Errorf("greet server %s: no answer: %w", to, err)
	}
	switch {
	case ours != "" && peer.cluster != "" && peer.cluster != ours:
		return peer, &WrongClusterError{What: "server " + to, Theirs: peer.cluster, Ours: ours, Advice: wrongClusterAdvice}
	case peer.code != helloOK:
		return peer, fmt.Errorf("greet server %s: it refuses this server: %s", to, peer.why)
	case peer.from != to:
		return peer, fmt.Errorf("greet server %s: server %s answers at its address: correct the list of servers", to, peer.from)
	}
	return peer, conn.SetDeadline(time.Time{})
}

const wrongClusterAdvice = "one of the two was started with the data directory or the addresses of another cluster: correct that and start it again"

// answer answers on a connection that another server opened.
func (g *guard) answer(conn net.Conn) (peer hello, err error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return peer, err
	}
	peer, err = readHello(conn)
	reply := hello{cluster: g.r.knownCluster(), from: g.r.cfg.ID, to: peer.from}
	switch {
	case errors.Is(err, errHandshakeVersion):
		reply.code, reply.why = helloWrongVersion, err.Error()
	case err != nil:
		return peer, err
	default:
		if reply.code, reply.why = g.judge(peer, reply.cluster); reply.code == helloOK {
			reply.code, reply.why = g.identify(conn, peer.from)
		}
	}
	if err := writeHello(conn, reply); err != nil {
		return peer, err
	}
	if reply.code != helloOK {
		return peer, errors.New(reply.why)
	}
	return peer, conn.SetDeadline(time.Time{})
}

// judge decides whether to talk to a peer.
func (g *guard) judge(peer hello, ours string) (code byte, why string) {
	switch {
	case ours != "" && peer.cluster != "" && peer.cluster != ours:
		return helloWrongCluster, (&WrongClusterError{What: "server " + peer.from, Theirs: peer.cluster, Ours: ours, Advice: wrongClusterAdvice}).Error()
	case peer.to != g.r.cfg.ID:
		return helloWrongServer, fmt.Sprintf("server %s is meant, but this is %s: correct the list of servers", peer.to, g.r.cfg.ID)
	case peer.from == g.r.cfg.ID:
		return helloWrongServer, fmt.Sprintf("two servers have the id %s: give one of them another", peer.from)
	case g.r.cfg.address(peer.from) == "":
		return helloWrongServer, fmt.Sprintf("server %s is not in the list of servers of %s", peer.from, g.r.cfg.ID)
	default:
		return helloOK, ""
	}
}

// identify checks by a peer's certificate that it is the server that it says
// it is. The TLS handshake takes every certificate of the cluster's CA, users'
// and agents' too; whoever speaks Raft can rewrite the whole state.
func (g *guard) identify(conn net.Conn, from string) (code byte, why string) {
	if c, ok := conn.(*guardedConn); ok {
		conn = c.Conn
	}
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return helloOK, "" // plain text: the network is trusted
	}
	shown := secured.ConnectionState().PeerCertificates
	if len(shown) == 0 {
		return helloOK, "" // without ClientCAs nobody is asked for one
	}
	host, _, err := net.SplitHostPort(g.r.cfg.address(from))
	if shown[0].Subject.CommonName == from || shown[0].VerifyHostname(from) == nil || (err == nil && shown[0].VerifyHostname(host) == nil) {
		return helloOK, ""
	}
	return helloWrongServer, fmt.Sprintf("the certificate of %q names neither server %s nor its host %s: give each server a certificate for its address",
		shown[0].Subject.CommonName, from, host)
}
