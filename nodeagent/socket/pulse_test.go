package socket_test

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/socket"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// TestProcessThatHangsIsTold: one that was connected and answers no ping is silent, until another connection of it says something. One that closes its
// connections is not.
func TestProcessThatHangsIsTold(t *testing.T) {
	t.Parallel()
	key, dir, changes := reconcile.Key{Job: 5, Epoch: 2}, t.TempDir(), make(chan struct{}, 100)
	path, err := socket.Path(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	s := socket.New(socket.Config{Host: "node-a", PulseTimeout: 50 * time.Millisecond, Changed: func() { changes <- struct{}{} }})
	defer s.Shutdown()
	s.Track(key, socket.Files{Socket: path, Notes: filepath.Join(dir, "notes.json")})
	if err := s.Serve(key); err != nil {
		t.Fatal(err)
	}
	hangs := dialRaw(t, path)
	<-changes
	if !s.Notes(key).GetSilent() {
		t.Error("it answers no ping, and is not silent")
	}
	_ = hangs.Close()

	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agentv1.NewWorkerServiceClient(conn).ReportProgress(within(t), &agentv1.ReportProgressRequest{Progress: &agentv1.Progress{}}); err != nil {
		t.Fatal(err)
	}
	<-changes
	if s.Notes(key).GetSilent() {
		t.Error("it has said something, and is silent")
	}
	_, _ = io.Copy(io.Discard, dialRaw(t, path)) // until the server closes it, while the other connection answers
	_ = conn.Close()
	left := dialRaw(t, path)
	_ = left.Close()
	s.Hush(key) // ends all connections
	select {
	case <-changes:
		t.Errorf("silent %v, though all that ended was closed by the process, or was not its last", s.Notes(key).GetSilent())
	default:
	}
}

// dialRaw is a connection that opens as HTTP/2 does, and then answers nothing. It returns once the server has answered.
func dialRaw(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 9)); err != nil {
		t.Fatal(err)
	}
	return conn
}
