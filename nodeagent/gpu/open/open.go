package open

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/gpu/fake"
	"github.com/gangline/gangline/nodeagent/gpu/nvml"
)

// patientWait is how long a patient Prober waits for the driver, which is awake if a worker uses it: the node's lease
// must not run out meanwhile.
const patientWait = time.Second

// Config is what the kinds of prober need beside the spec.
type Config struct {
	// Node is this node's name; emulated UUIDs are derived from it. Required for "fake:".
	Node string
	// Busy tells the emulation whether a worker holds the GPU; see fake.Config. May be nil.
	Busy func(uuid string) bool
	// Now is the emulation's clock. Nil: time.Now.
	Now func() time.Time
	// NVML configures real GPUs; its Log defaults to Log below.
	NVML nvml.Config
	// Patient makes a driver that fails no error of Prober: no GPU is shown until it answers, and
	// Prober waits 1 s for it at most. For an agent that has living
	// workers to look after, which a driver that was upgraded under them, or that hangs, does not always harm.
	Patient bool
	// Log receives what people should know: no driver found, NVML gone and back. Nil: nothing is logged.
	Log *slog.Logger
}

// Prober opens the GPUs that the spec names; gpu.SpecForms shows the forms. "nvml" fails without a driver (the
// error wraps gpu.ErrNoDriver); "auto" logs that and shows zero GPUs until a driver appears. A driver that
// hangs or fails in another way is an error for both: a node that has GPUs must not pass for one without. See also
// Config.Patient.
// The caller closes the prober.
func Prober(ctx context.Context, spec string, cfg Config) (gpu.Prober, error) {
	parsed, err := gpu.ParseSpec(spec)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	switch parsed.Kind {
	case gpu.KindNone:
		return gpu.None{}, nil
	case gpu.KindFake:
		p, err := fake.New(fake.Config{Node: cfg.Node, Spec: parsed, Busy: cfg.Busy, Now: cfg.Now})
		if err != nil {
			return nil, err
		}
		return p, nil
	case gpu.KindNVML, gpu.KindAuto:
		return openNVML(ctx, parsed.Kind, cfg)
	}
	return nil, fmt.Errorf("gpus spec %q: kind %q has no prober", spec, parsed.Kind)
}

func openNVML(ctx context.Context, kind gpu.Kind, cfg Config) (gpu.Prober, error) {
	if cfg.NVML.Log == nil {
		cfg.NVML.Log = cfg.Log
	}
	client := nvml.NewClient(cfg.NVML)
	var p gpu.Prober = client
	if kind == gpu.KindAuto {
		p = &auto{prober: client, log: cfg.Log}
	}
	first, cancel := ctx, func() {}
	if cfg.Patient {
		first, cancel = context.WithTimeout(ctx, patientWait)
	}
	defer cancel()
	_, err := p.GPUs(first)
	if err != nil && cfg.Patient && ctx.Err() == nil {
		cfg.Log.Error("GPUs cannot be read; living workers go on, new ones must wait", "gpus", kind, "err", err)
		return p, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open GPUs with --gpus %s: %w (--gpus none runs this node without GPUs)", kind, err), p.Close())
	}
	return p, nil
}

// auto shows zero GPUs while there is no driver, and says so once.
type auto struct {
	prober gpu.Prober
	log    *slog.Logger

	mu   sync.Mutex
	told string // the last reason that was logged
}

// GPUs is the inventory, empty while there is no driver.
func (a *auto) GPUs(ctx context.Context) ([]gpu.GPU, error) {
	gpus, err := a.prober.GPUs(ctx)
	if errors.Is(err, gpu.ErrNoDriver) {
		a.tell(err)
		return nil, nil
	}
	return gpus, err
}

// Samples are the readings, empty while there is no driver.
func (a *auto) Samples(ctx context.Context) ([]gpu.Sample, error) {
	samples, err := a.prober.Samples(ctx)
	if errors.Is(err, gpu.ErrNoDriver) {
		a.tell(err)
		return nil, nil
	}
	return samples, err
}

// Close closes the prober beneath.
func (a *auto) Close() error { return a.prober.Close() }

func (a *auto) tell(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told == err.Error() {
		return
	}
	a.told = err.Error()
	a.log.Warn("this node offers no GPUs", "why", err, "hint", "install or load the driver, or use --gpus none")
}
