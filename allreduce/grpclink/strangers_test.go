package grpclink_test

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
	"github.com/gangline/gangline/allreduce/grpclink/h2stream"
)

// patient is a listener on whose connections no time limit comes to pass: only an end by force does.
type patient struct {
	net.Listener
	came chan string // who dialled
}

func (l patient) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.came <- conn.RemoteAddr().String()
	return patientConn{conn}, nil
}

type patientConn struct{ net.Conn }

func (c patientConn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && time.Until(t) > 0 {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

func (c patientConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// Who stops in the middle of what a dialler says holds up no rank's end, wherever that is: as a process that was stopped does.
func TestCloseWaitsForNoDialler(t *testing.T) {
	t.Parallel()
	cert, pool := identity(t)
	const preface, settings = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for name, says := range map[string]string{
		"nothing": "", "half a preface": preface[:10], "a preface": preface, "half of a frame": preface + settings[:5], "settings": preface + settings,
		"a stream": "", "half of a TLS hello": "\x16\x03\x01\x02",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ls, peers := listeners(t, 2)
			groups := make([]*allreduce.Group, 2)
			came := make(chan string, 100) // more than dial
			var all errgroup.Group
			for r := range groups {
				all.Go(func() (err error) {
					cfg := config(r, peers, patient{ls[r], came})
					cfg.Path = grpclink.PathGRPC
					if name == "half of a TLS hello" {
						cfg.ServerTLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
						cfg.ClientTLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
					}
					groups[r], err = grpclink.Join(t.Context(), cfg)
					return err
				})
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", peers[0])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close() //nolint:errcheck // a test's
			if name == "a stream" {
				call, err := h2stream.Dial(conn, h2stream.Config{}, "/gangline.ring.v1.RingService/Link", "ring", false)
				if err != nil {
					t.Fatal(err)
				}
				defer call.Close()
			} else if _, err := io.WriteString(conn, says); err != nil {
				t.Fatal(err)
			}
			for who := range came {
				if who == conn.LocalAddr().String() {
					break
				}
			}
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				closeAll(groups)
			}()
			select {
			case <-closed:
			case <-time.After(time.Minute): // it would be for ever
				t.Fatal("a rank's end waits for who dialled it and stopped")
			}
		})
	}
}
