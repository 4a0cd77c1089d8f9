//go:build linux && cgo

package nvml_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/gpu/nvml"
)

func TestInventoryOfEight(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "gpus 8\n7 name NVIDIA L4\n", nil)
	got := r.gpus(t)
	if len(got) != 8 || sick(got) != "" {
		t.Fatalf("got %d GPUs, unhealthy %q, want 8 healthy: %+v", len(got), sick(got), got)
	}
	want := gpu.GPU{
		UUID: "GPU-00000000-0000-4000-8000-000000000003", Index: 3, Minor: 13, PCIBusID: "00fe:3d:00.0", Type: "h100",
		Name: "NVIDIA H100 80GB HBM3", MemBytes: 81559 << 20, NUMANode: gpu.NUMAUnknown, DriverVersion: "570.86.15",
		Health: gpu.Health{Healthy: true},
	}
	if diff := cmp.Diff(want, got[3]); diff != "" {
		t.Errorf("GPU 3 (-want +got):\n%s", diff)
	}
	if got[7].Type != "l4" {
		t.Errorf("type of GPU 7 = %q, want l4", got[7].Type)
	}
}

func TestSamplesFollowTheDriver(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "gpus 2\n0 util 97\n", nil)
	samples, err := r.client.Samples(t.Context())
	if err != nil || len(samples) != 2 {
		t.Fatalf("Samples = %+v, %v, want 2", samples, err)
	}
	want := gpu.Sample{
		UUID: "GPU-00000000-0000-4000-8000-000000000000", UtilPct: new(97.0), MemUsedBytes: new(int64(1 << 30)),
		PowerWatts: new(123.456), TempCelsius: new(41.0), // no SMClockMHz: the fake exports no such function
	}
	if diff := cmp.Diff(want, samples[0]); diff != "" {
		t.Errorf("sample 0 (-want +got):\n%s", diff)
	}
	if samples[1].UtilPct != nil {
		t.Errorf("GPU 1 does not report utilisation, but the sample says %v", *samples[1].UtilPct)
	}
	r.set(t, "gpus 2\n0 util 12\n1 lost 1\n")
	if samples, err = r.client.Samples(t.Context()); err != nil || len(samples) != 1 || *samples[0].UtilPct != 12 {
		t.Errorf("after the change: %+v, %v, want one sample with utilisation 12 (GPU 1 is lost)", samples, err)
	}
}

func TestLostGPUIsUnhealthyAloneAndComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "gpus 4\n", func(c *nvml.Config) { c.ReattachEvery = time.Nanosecond })
	r.gpus(t)
	r.set(t, "gpus 4\n3 lost 1\n")
	got := r.gpus(t)
	if sick(got) != "3" || !strings.Contains(got[3].Health.Reason, "lost") {
		t.Fatalf("unhealthy %q reason %q, want 3 and a reason", sick(got), got[3].Health.Reason)
	}
	// A new probe cannot even open it: the identity must survive in the client.
	r.set(t, "gpus 4\n3 gone 1\n")
	got = r.gpus(t)
	if len(got) != 4 || sick(got) != "3" || got[3].UUID != "GPU-00000000-0000-4000-8000-000000000003" {
		t.Fatalf("after a re-attach: %+v, want 4 GPUs with GPU 3 unhealthy", got)
	}
	r.set(t, "gpus 3\n")
	if got = r.gpus(t); len(got) != 4 || !strings.Contains(got[3].Health.Reason, "does not list") {
		t.Fatalf("driver lists 3 of 4: %+v, want GPU 3 kept as unhealthy", got)
	}
	r.set(t, "gpus 4\n")
	if got = r.gpus(t); sick(got) != "" {
		t.Errorf("after the reset: unhealthy %q, want none", sick(got))
	}
}

func TestHangIsUnhealthyWithinTheDeadlineAndRecovers(t *testing.T) {
	t.Parallel()
	const deadline = 300 * time.Millisecond
	r := newRig(t, newDriverLib, "gpus 8\n", func(c *nvml.Config) { c.CallTimeout = deadline })
	r.until(t, "8 healthy GPUs", func(g []gpu.GPU) bool { return len(g) == 8 && sick(g) == "" })
	r.set(t, "gpus 8\n5 hang 1\n")
	start := time.Now()
	got := r.gpus(t)
	if took := time.Since(start); took > deadline+2*time.Second {
		t.Errorf("the hang held the caller for %v, want about %v", took, deadline)
	}
	if sick(got) != "0 1 2 3 4 5 6 7" {
		t.Fatalf("unhealthy %q, want all 8", sick(got))
	}
	reason := got[0].Health.Reason
	if !strings.Contains(reason, "hangs") || !strings.Contains(reason, "GPU-00000000-0000-4000-8000-000000000005") {
		t.Errorf("reason %q does not say that GPU 5 hangs", reason)
	}
	if _, err := r.client.Samples(t.Context()); err == nil {
		t.Error("Samples during the hang: no error")
	}
	r.set(t, "gpus 8\n")
	r.until(t, "8 healthy GPUs again", func(g []gpu.GPU) bool { return sick(g) == "" })
}

func TestDeathOfTheProbeIsUnhealthyAndRecovers(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "gpus 2\n", nil)
	r.gpus(t)
	r.set(t, "gpus 2\n1 die 1\n")
	got := r.gpus(t)
	if sick(got) != "0 1" {
		t.Fatalf("unhealthy %q, want both", sick(got))
	}
	for _, want := range []string{"exit status 127", "symbol lookup error", "000000000001"} {
		if !strings.Contains(got[0].Health.Reason, want) {
			t.Errorf("reason %q lacks %q", got[0].Health.Reason, want)
		}
	}
	r.set(t, "gpus 2\n")
	r.until(t, "2 healthy GPUs", func(g []gpu.GPU) bool { return sick(g) == "" })
}

func TestDriverNotLoadedThenLoaded(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "gpus 1\ninit_fail 9\n", nil)
	_, err := r.client.GPUs(t.Context())
	if !errors.Is(err, gpu.ErrNoDriver) || !strings.Contains(err.Error(), "kernel driver is not loaded") {
		t.Fatalf("GPUs = %v, want ErrNoDriver that names the kernel driver", err)
	}
	r.set(t, "gpus 1\n")
	deadline := time.Now().Add(20 * time.Second)
	for err != nil {
		if time.Now().After(deadline) {
			t.Fatalf("driver loaded, but still: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
		_, err = r.client.GPUs(t.Context())
	}
}

func TestInitFailureIsNotNoDriver(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "init_fail 18\n", nil) // library and kernel driver of different versions
	_, err := r.client.GPUs(t.Context())
	if err == nil || errors.Is(err, gpu.ErrNoDriver) || !strings.Contains(err.Error(), "reboot") {
		t.Errorf("GPUs = %v, want an error that asks for a reboot and is not ErrNoDriver", err)
	}
}

func TestLibraryMissing(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/nonexistent/libnvidia-ml.so.1", "libm.so.6"} {
		r := newRig(t, newDriverLib, "", func(c *nvml.Config) { c.Library = path })
		_, err := r.client.GPUs(t.Context())
		if !errors.Is(err, gpu.ErrNoDriver) || !strings.Contains(err.Error(), path) {
			t.Errorf("library %s: %v, want ErrNoDriver that names it", path, err)
		}
	}
}

func TestOldDriverWithMissingFunctionsLives(t *testing.T) {
	t.Parallel()
	r := newRig(t, oldDriverLib, "gpus 2\n", nil)
	got := r.gpus(t)
	if len(got) != 2 || sick(got) != "" {
		t.Fatalf("got %+v, want 2 healthy GPUs", got)
	}
	if g := got[1]; g.Minor != -1 || g.PCIBusID != "" || g.MemBytes != 0 || g.DriverVersion != "" || g.Type != "h100" {
		t.Errorf("GPU 1 = %+v, want unknown facts left unknown", g)
	}
	samples, err := r.client.Samples(t.Context())
	if err != nil || len(samples) != 0 {
		t.Errorf("Samples = %+v, %v, want none: the driver reports nothing", samples, err)
	}
}

func TestHangAtStartEndsWithTheCallerOrClose(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "gpus 1\ninit_hang 1\n", nil) // StartTimeout stays at its 30 s
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.client.GPUs(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("GPUs with a short context = %v, want its deadline", err)
	}
	start := time.Now()
	if err := r.client.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("Close waited %v for a hung probe", took)
	}
	if _, err := r.client.GPUs(t.Context()); err == nil {
		t.Error("GPUs after Close: no error")
	}
}
