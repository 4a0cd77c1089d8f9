package nvml

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// Config of a Client. The zero value of each field means its default.
type Config struct {
	// Command runs ProbeMain in a process of its own. Default: this very binary with the verb gpu-probe.
	Command []string
	// Env is added to the agent's environment for the child.
	Env []string
	// Library is the path or soname of NVML. Default: libnvidia-ml.so.1, found by the dynamic linker.
	Library string
	// CallTimeout bounds one inventory or one round of readings. Default 5 s. Too small: a slow driver (one
	// without persistence mode) looks sick. Too large: news of a hung GPU comes late.
	CallTimeout time.Duration
	// StartTimeout bounds the start of NVML. Default 30 s: without persistence mode it wakes every GPU.
	StartTimeout time.Duration
	// BackoffMin and BackoffMax bound the pause before the probe is started again; it doubles from one to the
	// other while starts go wrong. Defaults 1 s and 60 s.
	BackoffMin, BackoffMax time.Duration
	// ReattachEvery is how often a fresh probe looks whether an unhealthy GPU has come back; NVML shows a
	// reset GPU only to a new process. Default 60 s.
	ReattachEvery time.Duration
	// Log receives starts and failures of the probe. Default: nothing is logged.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if len(c.Command) == 0 {
		c.Command = []string{"/proc/self/exe", "gpu-probe"}
	}
	c.CallTimeout = cmp.Or(c.CallTimeout, 5*time.Second)
	c.StartTimeout = cmp.Or(c.StartTimeout, 30*time.Second)
	c.BackoffMin = cmp.Or(c.BackoffMin, time.Second)
	c.BackoffMax = max(cmp.Or(c.BackoffMax, time.Minute), c.BackoffMin)
	c.ReattachEvery = cmp.Or(c.ReattachEvery, time.Minute)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Client is the agent's side of NVML; safe for concurrent use. Once a GPU was seen it stays in the inventory:
// if the probe hangs or dies, every GPU is unhealthy with the reason until a new probe answers; if the driver
// stops listing one GPU, that one is unhealthy.
type Client struct {
	calls chan call
	quit  chan struct{} // closed by Close
	done  chan struct{} // closed when run has ended
	once  sync.Once     // closes quit
}

var _ gpu.Prober = (*Client)(nil)

// call is a request to the client's goroutine; reply has room for one result, so that a caller who left
// does not hold the goroutine up.
type call struct {
	op    op
	reply chan result
}

type result struct {
	gpus    []gpu.GPU
	samples []gpu.Sample
	err     error
}

// NewClient returns a client whose probe starts with the first call. Close it to end its goroutine and process.
func NewClient(cfg Config) *Client {
	c := &Client{calls: make(chan call), quit: make(chan struct{}), done: make(chan struct{})}
	s := &supervisor{cfg: cfg.withDefaults(), quit: c.quit}
	go func() {
		defer close(c.done)
		s.run(c.calls)
	}()
	return c
}

// GPUs returns the inventory. It fails only while no GPU was ever seen; the error wraps gpu.ErrNoDriver if
// the node has no usable driver.
func (c *Client) GPUs(ctx context.Context) ([]gpu.GPU, error) {
	r := c.ask(ctx, opGPUs)
	return r.gpus, r.err
}

// Samples returns the readings; it fails while the probe cannot answer.
func (c *Client) Samples(ctx context.Context) ([]gpu.Sample, error) {
	r := c.ask(ctx, opSamples)
	return r.samples, r.err
}

// Close ends the probe; it waits for the process at most 2 s, since one that hangs in the driver may never
// end. Closing twice is allowed.
func (c *Client) Close() error {
	c.once.Do(func() { close(c.quit) })
	<-c.done
	return nil
}

func (c *Client) ask(ctx context.Context, o op) result {
	reply := make(chan result, 1)
	select {
	case c.calls <- call{o, reply}:
	case <-ctx.Done():
		return result{err: fmt.Errorf("ask NVML for %s: %w", o, ctx.Err())}
	case <-c.quit:
		return result{err: errStopped}
	}
	select {
	case r := <-reply:
		return r
	case <-ctx.Done():
		return result{err: fmt.Errorf("ask NVML for %s: %w", o, ctx.Err())}
	}
}

// sortGPUs orders an inventory as the Prober contract says.
func sortGPUs(gpus []gpu.GPU) {
	slices.SortFunc(gpus, func(a, b gpu.GPU) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), strings.Compare(a.UUID, b.UUID))
	})
}

// classified turns the child's failure into an error that wraps gpu.ErrNoDriver where that is meant.
func classified(r response) error {
	switch {
	case r.Code == "":
		return nil
	case r.Code.absent():
		return fmt.Errorf("%w: %s", gpu.ErrNoDriver, r.Error)
	default:
		return errors.New(r.Error)
	}
}
