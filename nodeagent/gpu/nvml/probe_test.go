package nvml

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// scripted is a driver of functions.
type scripted struct {
	onInit    func(string) error
	onSamples func(at func(string)) ([]gpu.Sample, error)
}

func (s scripted) init(path string) error { return s.onInit(path) }
func (s scripted) gpus(func(string)) ([]gpu.GPU, []string, error) {
	return []gpu.GPU{{UUID: "GPU-1"}}, []string{"index 1"}, nil
}
func (s scripted) samples(at func(string)) ([]gpu.Sample, error) { return s.onSamples(at) }

func TestServeAnswersEachRequest(t *testing.T) {
	t.Parallel()
	d := scripted{
		onInit: func(path string) error { return &probeError{codeNoDriver, "no driver at " + path} },
		onSamples: func(at func(string)) ([]gpu.Sample, error) {
			at("GPU-1")
			return nil, errors.New("broken")
		},
	}
	in, send := io.Pipe()
	receive, out := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- serve(in, out, d)
	}()
	answers := json.NewDecoder(receive)
	ask := func(line string) (got response) {
		t.Helper()
		if _, err := io.WriteString(send, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if err := answers.Decode(&got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := ask(`{"v":1,"id":1,"op":"init","library":"/x"}`); got.Code != codeNoDriver || got.Error != "no driver at /x" {
		t.Errorf("init: %+v", got)
	}
	if got := ask(`{"v":1,"id":2,"op":"gpus"}`); got.ID != 2 || len(got.GPUs) != 1 || len(got.Missing) != 1 {
		t.Errorf("gpus: %+v", got)
	}
	if got := ask(`{"v":1,"id":3,"op":"samples"}`); got.At != "GPU-1" {
		t.Errorf("samples, first line: %+v, want the device", got)
	}
	var got response
	if err := answers.Decode(&got); err != nil || got.Code != codeFailed || got.Error != "broken" {
		t.Errorf("samples, second line: %+v, %v", got, err)
	}
	if got := ask(`{"v":1,"id":4,"op":"dance"}`); got.Code != codeFailed || !strings.Contains(got.Error, "dance") {
		t.Errorf("unknown op: %+v", got)
	}
	if err := send.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-status; got != 0 {
		t.Errorf("status at the end of stdin = %d, want 0", got)
	}
}

func TestServeRefusesAnotherVersion(t *testing.T) {
	t.Parallel()
	for _, line := range []string{`{"v":2,"id":1,"op":"init"}`, "hello"} {
		var out bytes.Buffer
		if got := serve(strings.NewReader(line+"\n"), &out, scripted{}); got != 2 || !strings.Contains(out.String(), "version 1") {
			t.Errorf("%q: status %d, output %q, want 2 and the version", line, got, out.String())
		}
	}
}

// TestServeEndsWithStdinDuringAHang is what ends the probe of an agent that was killed.
func TestServeEndsWithStdinDuringAHang(t *testing.T) {
	t.Parallel()
	hanging, free := make(chan struct{}), make(chan struct{})
	d := scripted{onInit: func(string) error { close(hanging); <-free; return nil }}
	in, send := io.Pipe()
	status := make(chan int, 1)
	go func() { status <- serve(in, io.Discard, d) }()
	if _, err := io.WriteString(send, `{"v":1,"id":1,"op":"init"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	<-hanging
	if err := send.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-status; got != 0 {
		t.Errorf("status = %d, want 0", got)
	}
	close(free)
}

func TestTailKeepsTheEndAsOneLine(t *testing.T) {
	t.Parallel()
	var words tail
	for range 3 {
		if _, err := words.Write(bytes.Repeat([]byte("x"), stderrKept)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := words.Write([]byte("\nlast\nwords\n")); err != nil {
		t.Fatal(err)
	}
	if got := words.String(); len(got) > stderrKept || !strings.HasSuffix(got, "x last words") {
		t.Errorf("tail = %q (%d bytes), want at most %d that end in the last words", got, len(got), stderrKept)
	}
}

func TestSysfsNUMANodeFile(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for bus, text := range map[string]string{"0000:3b:00.0": "1\n", "0000:3c:00.0": "-1\n", "0000:3d:00.0": "x"} {
		if err := os.MkdirAll(filepath.Join(root, bus), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, bus, "numa_node"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for bus, want := range map[string]int{"0000:3b:00.0": 1, "0000:3c:00.0": -1, "0000:3d:00.0": -1, "0000:3e:00.0": -1} {
		if got := numaNode(root, bus); got != want {
			t.Errorf("numaNode(%s) = %d, want %d", bus, got, want)
		}
	}
}
