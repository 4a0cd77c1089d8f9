package s3test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

const (
	// Access is, with Secret, the server's only key.
	Access = "tester"
	// Secret goes with Access.
	Secret = "not-a-secret"
	// Bucket is there from the start.
	Bucket = "checkpoints"

	// patience is how long the server may take to answer on a loaded machine.
	patience = 30 * time.Second
)

// Server is one that runs, or that Kill has ended.
type Server struct {
	Endpoint string // its URL, the same after Restart
	Root     string // the directory that holds its buckets

	t       testing.TB
	program string
	address string
	log     lockedBuffer
	cmd     *exec.Cmd
	ended   chan struct{}
}

// Start runs a server until the test ends. The test is skipped where the program is not built: `make s3` builds it, and GANGLINE_VERSITYGW names
// another one.
func Start(t testing.TB) *Server {
	t.Helper()
	program := os.Getenv("GANGLINE_VERSITYGW")
	if program == "" {
		_, here, _, _ := runtime.Caller(0) // tests run in their own package's directory
		program = filepath.Join(filepath.Dir(here), "../../../bin/versitygw")
	}
	if _, err := os.Stat(program); err != nil {
		t.Skipf("no S3 server to test against (%v): make s3 builds one", err)
	}
	s := &Server{t: t, program: program, address: freeAddress(t), Root: t.TempDir()}
	s.Endpoint = "http://" + s.address
	if err := os.Mkdir(filepath.Join(s.Root, Bucket), 0o755); err != nil { //nolint:gosec // a test's
		t.Fatal(err)
	}
	s.Restart()
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.log.String())
		}
	})
	return s
}

// Env has this process's S3 clients use the server's keys until the test ends. Such a test cannot be parallel.
func Env(t testing.TB) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", Access)
	t.Setenv("AWS_SECRET_ACCESS_KEY", Secret)
	t.Setenv("AWS_REGION", "us-east-1")
}

// Kill ends the server at once, in the middle of whatever it does. A server that has ended is left.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
	s.cmd = nil
}

// Restart starts the server, which does not run, at its old address with its old content, and waits until it answers.
func (s *Server) Restart() {
	s.t.Helper()
	cmd := exec.Command(s.program, "--access", Access, "--secret", Secret, "--port", s.address, "posix", s.Root) //nolint:gosec // the tests' own program
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	go func() {
		_ = cmd.Wait() // how it ended is in the log
		close(ended)
	}()
	for deadline := time.Now().Add(patience); ; {
		resp, err := http.Get(s.Endpoint)
		if err == nil {
			_ = resp.Body.Close() // any answer will do
			return
		}
		select {
		case <-ended:
			s.t.Fatalf("the server ended at once:\n%s", s.log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the server does not answer: %v\n%s", err, s.log.String())
		}
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return address
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
