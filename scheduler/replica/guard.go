package replica

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// guard is the stream layer that Raft sees: the given one, with a handshake on
// each connection, in both directions.
type guard struct {
	r     *Replica
	inner raft.StreamLayer

	ready  chan net.Conn // greeted, waiting for Accept
	slots  chan struct{} // one token for each handshake that another server began
	closed chan struct{}
	wg     sync.WaitGroup

	mu      sync.Mutex
	closing bool
	conns   map[*guardedConn]bool
	wrong   map[string]error     // peers that belong to another cluster, as dialed
	logged  map[string]time.Time // when a refusal of the same text was last logged
}

const (
	maxHandshakes   = 64 // at once; a cluster needs a handful
	refusalLogEvery = 10 * time.Second
	maxRefusalTexts = 256 // remembered for refusalLogEvery
)

func newGuard(r *Replica, inner raft.StreamLayer) *guard {
	g := &guard{
		r: r, inner: inner, ready: make(chan net.Conn), slots: make(chan struct{}, maxHandshakes), closed: make(chan struct{}),
		conns: map[*guardedConn]bool{}, wrong: map[string]error{}, logged: map[string]time.Time{},
	}
	g.wg.Go(g.serve)
	return g
}

// guardedConn is a greeted connection, or one that is being greeted.
type guardedConn struct {
	net.Conn
	g       *guard
	cluster string // the peer's, as it said; guarded by g.mu
}

// Close closes the connection.
func (c *guardedConn) Close() error {
	c.g.mu.Lock()
	delete(c.g.conns, c)
	c.g.mu.Unlock()
	return c.Conn.Close()
}

// track makes sure that Close finds the connection; false if it is too late.
func (g *guard) track(conn net.Conn) (*guardedConn, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return nil, false
	}
	c := &guardedConn{Conn: conn, g: g}
	g.conns[c] = true
	return c, true
}

// settle notes what the peer said, and reports whether this is still right: the
// cluster's id may have become known during the handshake.
func (g *guard) settle(c *guardedConn, cluster string) bool {
	g.mu.Lock()
	c.cluster = cluster
	g.mu.Unlock()
	ours := g.r.knownCluster()
	return cluster == "" || ours == "" || cluster == ours
}

// recheck closes the connections that were greeted before this server knew its
// cluster: they come back and are judged with the id known.
func (g *guard) recheck(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		if c.cluster != id {
			_ = c.Conn.Close() // its user sees the error and opens another
		}
	}
}

func (g *guard) serve() {
	const pause = 50 * time.Millisecond // when out of file descriptors, say
	for {
		conn, err := g.inner.Accept()
		if err == nil {
			g.accept(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		g.r.log.Warn("accept Raft connection", "error", err)
		select {
		case <-time.After(pause):
		case <-g.closed:
			return
		}
	}
}

func (g *guard) accept(conn net.Conn) {
	select {
	case g.slots <- struct{}{}:
	default:
		g.refused(conn, errors.New("too many unfinished handshakes"))
		_ = conn.Close()
		return
	}
	c, ok := g.track(conn)
	if !ok {
		<-g.slots
		_ = conn.Close()
		return
	}
	g.wg.Go(func() {
		peer, err := g.answer(c)
		<-g.slots
		if err != nil || !g.settle(c, peer.cluster) {
			g.refused(c, err)
			_ = c.Close()
			return
		}
		select {
		case g.ready <- c:
		case <-g.closed:
			_ = c.Close()
		}
	})
}

// refused logs a refusal, but the same one only now and then.
func (g *guard) refused(conn net.Conn, err error) {
	if err == nil {
		return
	}
	g.mu.Lock()
	now := time.Now()
	if len(g.logged) >= maxRefusalTexts {
		clear(g.logged)
	}
	recent := now.Sub(g.logged[err.Error()]) < refusalLogEvery
	if !recent {
		g.logged[err.Error()] = now
	}
	closing := g.closing
	g.mu.Unlock()
	if !recent && !closing {
		g.r.log.Warn("Raft connection refused", "remote", conn.RemoteAddr().String(), "error", err)
	}
}

// Accept returns the next greeted connection.
func (g *guard) Accept() (net.Conn, error) {
	select {
	case c := <-g.ready:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Dial opens a connection and greets the server behind it.
func (g *guard) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	to := g.r.cfg.serverAt(string(address))
	if to == "" {
		return nil, fmt.Errorf("dial %s: no server in the configuration has this address", address)
	}
	conn, err := g.inner.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	c, ok := g.track(conn)
	if !ok {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	peer, err := g.greet(c, to)
	g.note(to, err)
	if err == nil && !g.settle(c, peer.cluster) {
		err = fmt.Errorf("greet server %s: the cluster's id became known meanwhile", to)
	}
	if err != nil {
		g.refused(c, err)
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// note counts the peers of another cluster. When so many are that those left
// are no majority, this server can never take part: it stops and says why. A
// server of a healthy majority only refuses the stray.
func (g *guard) note(peer string, err error) {
	var wrong *WrongClusterError
	g.mu.Lock()
	if errors.As(err, &wrong) {
		g.wrong[peer] = err
	} else {
		delete(g.wrong, peer)
	}
	members, strangers := len(g.r.cfg.Servers), len(g.wrong)
	g.mu.Unlock()
	if wrong != nil && members-strangers < members/2+1 {
		g.r.fail(fmt.Errorf("%d of %d servers refuse this one, whose data is in %s: %w", strangers, members, g.r.cfg.Dir, wrong))
	}
}

// Addr returns this server's address as the others know it, whatever address
// the listener has.
func (g *guard) Addr() net.Addr { return textAddr(g.r.cfg.address(g.r.cfg.ID)) }

// ServerAddr returns where to reach a server now; the log may hold an older address.
func (g *guard) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if a := g.r.cfg.address(string(id)); a != "" {
		return raft.ServerAddress(a), nil
	}
	return "", fmt.Errorf("server %s is not in the configuration", id)
}

// Close closes the inner layer and all connections, and waits for its goroutines.
func (g *guard) Close() error {
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		return nil
	}
	g.closing = true
	for c := range g.conns {
		_ = c.Conn.Close()
	}
	g.mu.Unlock()
	close(g.closed)
	err := g.inner.Close()
	g.wg.Wait()
	return err
}
