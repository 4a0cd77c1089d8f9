package nvml

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// driver is what the child's loop needs of NVML. at is called with a name before each device is asked.
type driver interface {
	init(library string) error
	gpus(at func(string)) (gpus []gpu.GPU, missing []string, err error)
	samples(at func(string)) ([]gpu.Sample, error)
}

// probeError is a failure with the class that the agent acts on.
type probeError struct {
	code code
	text string
}

func (e *probeError) Error() string { return e.text }

// ProbeMain is the child process: it answers requests from stdin on stdout until stdin ends, and returns the
// exit status. It ends with stdin even while a call into the driver hangs; the caller must then exit the
// process, since the hung call still holds a thread. Use it as a program's whole main, once per process.
func ProbeMain(stdin io.Reader, stdout io.Writer) int {
	return serve(stdin, stdout, newDriver())
}

// serve reads on this goroutine and calls the driver on another, so that the end of stdin is always seen.
func serve(stdin io.Reader, stdout io.Writer, d driver) int {
	requests := make(chan request)
	failed := make(chan struct{}) // closed when stdout is gone
	p := &prober{driver: d, out: json.NewEncoder(stdout)}
	go func() {
		defer close(failed)
		for req := range requests {
			if p.answer(req) != nil {
				return
			}
		}
	}()
	defer close(requests)
	lines := bufio.NewScanner(stdin)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for lines.Scan() {
		var req request
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil || req.Version != protocolVersion {
			_ = p.send(response{ID: req.ID, Code: codeFailed, Error: fmt.Sprintf("gpu-probe speaks version %d, got %q", protocolVersion, lines.Text())})
			return 2
		}
		select {
		case requests <- req:
		case <-failed:
			return 1
		}
	}
	return 0
}

// prober answers requests one at a time; mu guards out against the reader's complaint.
type prober struct {
	driver driver

	mu  sync.Mutex
	out *json.Encoder
}

func (p *prober) send(r response) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Encode(r)
}

// answer runs one request; its error means that stdout is gone.
func (p *prober) answer(req request) error {
	resp := response{ID: req.ID}
	at := func(device string) { _ = p.send(response{ID: req.ID, At: device}) } // the answer reports a lost stdout
	var err error
	switch req.Op {
	case opInit:
		err = p.driver.init(req.Library)
	case opGPUs:
		resp.GPUs, resp.Missing, err = p.driver.gpus(at)
	case opSamples:
		resp.Samples, err = p.driver.samples(at)
	default:
		err = &probeError{codeFailed, fmt.Sprintf("gpu-probe does not know the request %q", req.Op)}
	}
	if err != nil {
		resp = response{ID: req.ID, Code: codeFailed, Error: err.Error()}
		var pe *probeError
		if errors.As(err, &pe) {
			resp.Code = pe.code
		}
	}
	return p.send(resp)
}
