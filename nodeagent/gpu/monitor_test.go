package gpu_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// script is a Prober whose answers a test sets; polls are counted.
type script struct {
	gpus      []gpu.GPU
	samples   []gpu.Sample
	err       error
	sampleErr error
	polls     int
}

func (s *script) GPUs(context.Context) ([]gpu.GPU, error) {
	s.polls++
	return s.gpus, s.err
}
func (s *script) Samples(context.Context) ([]gpu.Sample, error) { return s.samples, s.sampleErr }
func (s *script) Close() error                                  { return nil }

func healthyGPU(uuid string) gpu.GPU {
	return gpu.GPU{UUID: uuid, Type: "l4", Health: gpu.Health{Healthy: true}}
}

func TestMonitorPollsEachIntervalAndStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		util := 40.0
		p := &script{gpus: []gpu.GPU{healthyGPU("GPU-1")}, samples: []gpu.Sample{{UUID: "GPU-1", UtilPct: &util}}}
		m := gpu.NewMonitor(p, time.Second, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		time.Sleep(3500 * time.Millisecond) // virtual time of the bubble
		synctest.Wait()
		if p.polls != 4 {
			t.Errorf("polls in 3.5 s = %d, want 4", p.polls)
		}
		if got := m.Latest(); len(got.GPUs) != 1 || len(got.Samples) != 1 || got.Err != nil || got.At.IsZero() {
			t.Errorf("Latest = %+v, want one GPU with one sample", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func TestMonitorKeepsInventoryUnhealthyOnError(t *testing.T) {
	t.Parallel()
	util := 40.0
	p := &script{gpus: []gpu.GPU{healthyGPU("GPU-1")}, samples: []gpu.Sample{{UUID: "GPU-1", UtilPct: &util}}}
	m := gpu.NewMonitor(p, time.Second, slog.New(slog.DiscardHandler))
	m.Poll(t.Context())

	p.err = errors.New("driver is gone")
	got := m.Poll(t.Context())
	if len(got.GPUs) != 1 || got.GPUs[0].Health.Healthy || got.GPUs[0].Health.Reason != "driver is gone" {
		t.Errorf("after an error: GPUs = %+v, want the known one, unhealthy with the reason", got.GPUs)
	}
	if len(got.Samples) != 0 || got.Err == nil {
		t.Errorf("after an error: samples %v, err %v, want none and the error", got.Samples, got.Err)
	}
	p.err, p.sampleErr = nil, errors.New("no reading")
	if got = m.Poll(t.Context()); !got.GPUs[0].Health.Healthy || got.Samples != nil || got.Err == nil {
		t.Errorf("samples fail alone: %+v, want a healthy GPU, no sample, the error", got)
	}
	p.sampleErr = nil
	if got = m.Poll(t.Context()); got.Err != nil || len(got.Samples) != 1 {
		t.Errorf("after recovery: %+v, want one sample", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.err = context.Canceled
	if got = m.Poll(ctx); !got.GPUs[0].Health.Healthy {
		t.Error("a poll cut short by shutdown marked the GPU unhealthy")
	}
}

func TestSampleEmpty(t *testing.T) {
	t.Parallel()
	zero := 0.0
	if !(gpu.Sample{UUID: "GPU-1"}).Empty() || (gpu.Sample{UtilPct: &zero}).Empty() {
		t.Error("Empty must tell a missing reading from a reading of zero")
	}
}
