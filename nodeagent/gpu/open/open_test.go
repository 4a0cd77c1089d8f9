package open_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/gpu/fake"
	"github.com/gangline/gangline/nodeagent/gpu/nvml"
	"github.com/gangline/gangline/nodeagent/gpu/open"
)

// probeEnv makes the test binary behave as "gangline gpu-probe".
const probeEnv = "GANGLINE_TEST_GPU_PROBE"

func TestMain(m *testing.M) {
	if os.Getenv(probeEnv) != "" {
		os.Exit(nvml.ProbeMain(os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

// noLibrary is an NVML whose library does not exist.
func noLibrary() nvml.Config {
	return nvml.Config{
		// Command stays at its default: this binary with the verb gpu-probe.
		Env: []string{probeEnv + "=1"}, Library: "/nonexistent/libnvidia-ml.so.1",
		BackoffMin: time.Millisecond, BackoffMax: time.Millisecond,
	}
}

func TestNoneAndFake(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]int{"none": 0, "fake:8xH100": 8, "fake:4xA100+2xL4:seed=3": 6} {
		p, err := open.Prober(t.Context(), spec, open.Config{Node: "n1"})
		if err != nil {
			t.Fatalf("%s: %v", spec, err)
		}
		gpus, err := p.GPUs(t.Context())
		if err != nil || len(gpus) != want {
			t.Errorf("%s: %d GPUs, %v, want %d", spec, len(gpus), err, want)
		}
		if samples, err := p.Samples(t.Context()); err != nil || len(samples) != want {
			t.Errorf("%s: %d samples, %v, want %d", spec, len(samples), err, want)
		}
		if want == 6 && gpus[0].UUID != fake.UUID("n1", 3, 0) {
			t.Errorf("%s: UUID %s does not follow node and seed", spec, gpus[0].UUID)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAutoWithoutDriverHasZeroGPUsAndSaysWhyOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	p, err := open.Prober(t.Context(), "auto", open.Config{NVML: noLibrary(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if gpus, err := p.GPUs(t.Context()); err != nil || len(gpus) != 0 {
			t.Errorf("GPUs = %v, %v, want none without an error", gpus, err)
		}
		if samples, err := p.Samples(t.Context()); err != nil || len(samples) != 0 {
			t.Errorf("Samples = %v, %v, want none without an error", samples, err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "this node offers no GPUs"); n != 1 {
		t.Errorf("the reason was logged %d times, want once:\n%s", n, log.String())
	}
}

func TestNVMLWithoutDriverFails(t *testing.T) {
	t.Parallel()
	_, err := open.Prober(t.Context(), "nvml", open.Config{NVML: noLibrary()})
	if !errors.Is(err, gpu.ErrNoDriver) || !strings.Contains(err.Error(), "--gpus none") {
		t.Errorf("open nvml = %v, want ErrNoDriver with a way out", err)
	}
}

func TestAutoDoesNotHideASickDriver(t *testing.T) {
	t.Parallel()
	cfg := open.Config{NVML: nvml.Config{Command: []string{"sh", "-c", "exit 127"}}}
	if _, err := open.Prober(t.Context(), "auto", cfg); err == nil || errors.Is(err, gpu.ErrNoDriver) {
		t.Errorf("open auto with a dying probe = %v, want an error that is not ErrNoDriver", err)
	}
}

func TestPatientWaitsForASickDriver(t *testing.T) {
	t.Parallel()
	for spec, cfg := range map[string]nvml.Config{"auto": {Command: []string{"sh", "-c", "exit 127"}}, "nvml": noLibrary(), "auto:hangs": {Command: []string{"sleep", "1000"}}} {
		spec, _, _ := strings.Cut(spec, ":")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // a hung driver is given up after 30 s
		defer cancel()
		var log bytes.Buffer
		p, err := open.Prober(ctx, spec, open.Config{NVML: cfg, Patient: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatalf("%s: %v", spec, err)
		}
		cancel()
		if gpus, err := p.GPUs(ctx); err == nil || len(gpus) != 0 {
			t.Errorf("%s: GPUs = %v, %v, want none and the reason", spec, gpus, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("%s: log %s", spec, log.String())
		}
	}
}

func TestBadSpec(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"fake:8", "rocm", "fake:8xNoSuch"} {
		_, err := open.Prober(t.Context(), spec, open.Config{Node: "n1"})
		if err == nil {
			t.Errorf("open %q: no error", spec)
		}
	}
}
