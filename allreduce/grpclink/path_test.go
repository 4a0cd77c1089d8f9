package grpclink_test

import (
	"crypto/rand"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// TestAutoFallsBackToGRPC: ranks that take any path meet one that offers only gRPC.
func TestAutoFallsBackToGRPC(t *testing.T) {
	t.Parallel()
	const n = 3
	rank := 0
	ls, peers := listeners(t, n)
	groups := make([]*allreduce.Group, n)
	var all errgroup.Group
	for r := range n {
		all.Go(func() (err error) {
			cfg := config(r, peers, ls[r])
			if r == rank {
				cfg.Path = grpclink.PathGRPC
			}
			groups[r], err = grpclink.Join(t.Context(), cfg)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	defer closeAll(groups)
	for r, g := range groups {
		all.Go(func() error { return sumOnce(t.Context(), g, r, n, 1000) })
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestDifferentPathsAreExplained: a rank that was told to use what its neighbour does not offer says so, without waiting for long.
func TestDifferentPathsAreExplained(t *testing.T) {
	t.Parallel()
	ls, peers := listeners(t, 2)
	errs := make([]error, 2)
	var all errgroup.Group
	for r, path := range []grpclink.Path{grpclink.PathTCP, grpclink.PathGRPC} {
		all.Go(func() error {
			cfg := config(r, peers, ls[r])
			cfg.Path, cfg.JoinTimeout = path, 2*time.Second
			_, errs[r] = grpclink.Join(t.Context(), cfg)
			return nil
		})
	}
	_ = all.Wait()
	if errs[0] == nil || !strings.Contains(errs[0].Error(), "give all ranks the same path") {
		t.Errorf("rank 0 says %v", errs[0])
	}
	if errs[1] == nil {
		t.Error("rank 1 has joined a ring of one")
	}
}

// deafOnce is a listener whose first data connection is heard by nobody, as on a machine that is too busy to come to it.
type deafOnce struct {
	net.Listener
	deaf atomic.Int32 // connections that nobody hears
}

func (l *deafOnce) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &deafConn{Conn: conn, l: l}, err
}

// deafConn drops what comes if it is of a data connection, the first.
type deafConn struct {
	net.Conn
	l     *deafOnce
	heard bool
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.heard && n > 0 && b[0] == 0xD1 && c.l.deaf.CompareAndSwap(0, 1) {
		for err == nil {
			_, err = c.Conn.Read(b)
		}
		return 0, err
	}
	c.heard = c.heard || n > 0
	return n, err
}

// TestBusyMachineGetsItsPath: an agreement on the path that was asked for that took too long is tried again. Only what cannot be had ends the rank.
func TestBusyMachineGetsItsPath(t *testing.T) {
	t.Parallel()
	const n = 2
	ls, peers := listeners(t, n)
	busy := &deafOnce{Listener: ls[1]}
	ls[1] = busy
	groups := make([]*allreduce.Group, n)
	var all errgroup.Group
	for r := range n {
		all.Go(func() (err error) {
			cfg := config(r, peers, ls[r])
			cfg.Path = grpclink.PathTCP
			groups[r], err = grpclink.Join(t.Context(), cfg)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	defer closeAll(groups)
	if busy.deaf.Load() != 1 {
		t.Error("no data connection went unheard")
	}
	for r, g := range groups {
		all.Go(func() error { return sumOnce(t.Context(), g, r, n, 1000) })
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestStrangersOnTheDataPort: connections that say nothing, nonsense or a wrong proof get no answer and harm no ring, while it forms
// and afterwards.
func TestStrangersOnTheDataPort(t *testing.T) {
	t.Parallel()
	const n = 2
	ls, peers := listeners(t, n)
	knock := func(what []byte) net.Conn {
		conn, err := net.Dial("tcp", peers[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(what); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	wrong := append([]byte{0xD1}, []byte(strings.ToLower(rand.Text() + rand.Text() + rand.Text())[:64])...)
	silent := knock(nil)
	defer silent.Close() //nolint:errcheck // a test's connection
	early := knock(wrong)
	groups := make([]*allreduce.Group, n)
	var all errgroup.Group
	for r := range n {
		all.Go(func() (err error) {
			cfg := config(r, peers, ls[r])
			cfg.Path = grpclink.PathTCP
			groups[r], err = grpclink.Join(t.Context(), cfg)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	defer closeAll(groups)
	for _, conn := range []net.Conn{early, knock(wrong), knock([]byte("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"))} {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if answer, err := io.ReadAll(conn); err == nil && len(answer) == 64 {
			t.Errorf("a stranger was let in: %x", answer)
		}
		_ = conn.Close()
	}
	for r, g := range groups {
		all.Go(func() error { return sumOnce(t.Context(), g, r, n, 1000) })
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}
