package remote_test

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
	"github.com/gangline/gangline/checkpoint/remote"
)

// server starts a real S3 server, versitygw, on a directory, and gives its URL. The test is skipped where that program is not
// built: `make s3` builds it, and GANGLINE_VERSITYGW names another one.
func server(t testing.TB) string {
	t.Helper()
	program := os.Getenv("GANGLINE_VERSITYGW")
	if program == "" {
		program = "../../bin/versitygw"
	}
	program, err := filepath.Abs(program)
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		t.Skipf("no S3 server to test against (%v): make s3 builds one", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Mkdir(root+"/checkpoints", 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "--access", "tester", "--secret", "not-a-secret", "--port", address, "posix", root)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in the log
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("the server's log:\n%s", log.String())
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; {
		resp, err := http.Get("http://" + address)
		if err == nil {
			_ = resp.Body.Close() // any answer will do
			return "http://" + address
		}
		select {
		case <-ended:
			t.Fatalf("the server ended at once:\n%s", log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v\n%s", err, log.String())
		}
	}
}

// TestAgainstAServer does all that a bucket is asked for with a real server: it is one test, for the environment is the process's.
func TestAgainstAServer(t *testing.T) {
	endpoint := server(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "tester")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
	t.Setenv("AWS_REGION", "us-east-1")
	b, err := remote.OpenS3("s3://checkpoints/some/prefix", endpoint)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, b)
	t.Run("conditional put", func(t *testing.T) {
		for _, want := range []error{nil, remote.ErrExists} {
			if err := b.PutNew(t.Context(), "job-1/x", []byte("first")); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		got := make([]byte, 3)
		if err := b.Read(t.Context(), "job-1/x", 2, got); err != nil || string(got) != "rst" {
			t.Errorf("%q, %v", got, err)
		}
		if err := b.Read(t.Context(), "job-1/none", 0, got); !errors.Is(err, remote.ErrNotFound) {
			t.Errorf("a missing object: %v", err)
		}
	})
	t.Run("many parts", func(t *testing.T) {
		s, err := checkpoint.Open(checkpoint.Config{FS: faultfs.New(), Job: "job-9"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Fence(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		w := make([]float32, 10<<20) // 40 MiB: three parts, the last one short
		for i := range w {
			w[i] = float32(i)
		}
		if _, err := s.WriteShard(t.Context(), checkpoint.ShardWrite{Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{checkpoint.Whole("w", w, int64(len(w)))}}); err != nil {
			t.Fatal(err)
		}
		m, err := s.Commit(t.Context(), checkpoint.CommitRequest{Epoch: 1, Step: 1, WorldSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Push(t.Context(), b, s, m); err != nil {
			t.Fatal(err)
		}
		back, err := checkpoint.Open(checkpoint.Config{FS: faultfs.New(), Job: "job-9"})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(w))
		m, err = remote.Pull(t.Context(), b, back, "job-9", m.Ref())
		if err == nil {
			err = back.ReadTensor(t.Context(), m, "w", got)
		}
		if err != nil || !slices.Equal(got, w) {
			t.Errorf("what came back is not what went: %v", err)
		}
	})
	t.Run("no bucket", func(t *testing.T) {
		b, err := remote.OpenS3("s3://nowhere/x", endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.PutNew(t.Context(), "a", nil); err == nil {
			t.Error("a bucket that is not there was written to")
		}
	})
}
