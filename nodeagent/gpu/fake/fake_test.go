package fake_test

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/gpu/fake"
)

func at(second int64) func() time.Time { return func() time.Time { return time.Unix(second, 0) } }

func open(t *testing.T, spec string, change func(*fake.Config)) *fake.Prober {
	t.Helper()
	parsed, err := gpu.ParseSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	cfg := fake.Config{Node: "n1", Spec: parsed, Now: at(1000)}
	if change != nil {
		change(&cfg)
	}
	p, err := fake.New(cfg)
	if err != nil {
		t.Fatalf("New(%q): %v", spec, err)
	}
	return p
}

func gpus(t *testing.T, p gpu.Prober) []gpu.GPU {
	t.Helper()
	got, err := p.GPUs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestInventory(t *testing.T) {
	t.Parallel()
	got := gpus(t, open(t, "fake:4xA100+2xL4", nil))
	if len(got) != 6 {
		t.Fatalf("got %d GPUs, want 6", len(got))
	}
	want := gpu.GPU{
		UUID: fake.UUID("n1", 0, 5), Index: 5, Minor: 5, PCIBusID: "0000:05:00.0", Type: "l4", Name: "NVIDIA L4",
		MemBytes: 23034 << 20, NUMANode: 1, Island: 1, DriverVersion: "emulated", Health: gpu.Health{Healthy: true},
	}
	if diff := cmp.Diff(want, got[5]); diff != "" {
		t.Errorf("GPU 5 (-want +got):\n%s", diff)
	}
	if got[0].Type != "a100" || got[0].MemBytes != 81920<<20 {
		t.Errorf("GPU 0 = %+v, want an a100 of 80 GiB", got[0])
	}
}

func TestUUIDsAreStableAndDistinct(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^GPU-[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]string{}
	for _, node := range []string{"n1", "n2", "n1 0"} {
		for seed := range uint64(3) {
			for index := range 64 {
				u := fake.UUID(node, seed, index)
				if !form.MatchString(u) {
					t.Fatalf("UUID %q is not in NVML form", u)
				}
				if old, dup := seen[u]; dup {
					t.Fatalf("UUID %s of node %s seed %d index %d is also %s", u, node, seed, index, old)
				}
				seen[u] = node
			}
		}
	}
	// A fixed value: a change would rename every emulated GPU of a running emulation on upgrade.
	if got, want := fake.UUID("n1", 0, 0), "GPU-9faa8a00-b155-80f5-8231-264b0debe83e"; got != want {
		t.Errorf("UUID(n1,0,0) = %s, want %s", got, want)
	}
}

func TestProductsNameTheirType(t *testing.T) {
	t.Parallel()
	for _, typ := range fake.Types() {
		g := gpus(t, open(t, "fake:1x"+typ, nil))[0]
		if got := gpu.TypeFromName(g.Name); got != typ {
			t.Errorf("product %q: type %q, want %q", g.Name, got, typ)
		}
		if g.MemBytes < 8<<30 || g.MemBytes > 1<<40 {
			t.Errorf("product %q: memory %d bytes is not plausible", g.Name, g.MemBytes)
		}
	}
}

func TestMemoryOptionAndUnknownType(t *testing.T) {
	t.Parallel()
	if got := gpus(t, open(t, "fake:1xX1:memory=2GiB", nil))[0]; got.MemBytes != 2<<30 || got.Type != "x1" {
		t.Errorf("got %+v, want type x1 with 2 GiB", got)
	}
	spec, err := gpu.ParseSpec("fake:1xX1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = fake.New(fake.Config{Node: "n1", Spec: spec, Now: at(0)})
	if err == nil || !strings.Contains(err.Error(), "h100") {
		t.Errorf("New with an unknown type = %v, want an error that lists the known types", err)
	}
}

func TestIslands(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"fake:8xH100":          "00000000",
		"fake:8xA100/4":        "00001111",
		"fake:5xA100/2":        "00112",
		"fake:4xA100/2+3xL4":   "0011222",
		"fake:2xA100+2xL4/1":   "0012",
		"fake:3xh100-3g.40gb":  "000",
		"fake:1xL4/1+1xA100/1": "01",
	} {
		got := ""
		for _, g := range gpus(t, open(t, spec, nil)) {
			got += strconv.Itoa(g.Island)
		}
		if got != want {
			t.Errorf("%s: islands %s, want %s", spec, got, want)
		}
	}
}

func TestInstances(t *testing.T) {
	t.Parallel()
	p := open(t, "fake:14xH100-1g.10gb", func(c *fake.Config) { c.Busy = func(string) bool { return true } })
	got := gpus(t, p)
	if len(got) != 14 {
		t.Fatalf("got %d instances, want 14", len(got))
	}
	for _, g := range got {
		if !gpu.IsInstance(g.UUID) || g.Type != "h100-1g.10gb" || g.MemBytes != 10<<30 || g.Name != "NVIDIA H100 80GB HBM3 MIG 1g.10gb" {
			t.Fatalf("got %+v, want an instance of 10 GiB", g)
		}
	}
	if gpu.IsInstance(gpus(t, open(t, "fake:1xH100", nil))[0].UUID) {
		t.Error("a whole GPU passes for an instance")
	}
	samples, err := p.Samples(t.Context())
	if err != nil || len(samples) != 14 || samples[0].PowerWatts != nil || samples[0].MemUsedBytes == nil {
		t.Errorf("samples %+v, %v, want memory and no power", samples, err)
	}
}

func TestSamplesFollowBusy(t *testing.T) {
	t.Parallel()
	busyUUID := fake.UUID("n1", 0, 1)
	p := open(t, "fake:2xH100", func(c *fake.Config) {
		c.Busy = func(uuid string) bool { return uuid == busyUUID }
	})
	samples, err := p.Samples(t.Context())
	if err != nil || len(samples) != 2 {
		t.Fatalf("Samples = %v, %v, want 2 samples", samples, err)
	}
	idle, busy := samples[0], samples[1]
	if *idle.UtilPct != 0 || *busy.UtilPct < 89 || *busy.UtilPct > 100 {
		t.Errorf("utilisation idle %v busy %v, want 0 and 89..100", *idle.UtilPct, *busy.UtilPct)
	}
	if *busy.MemUsedBytes <= *idle.MemUsedBytes || *busy.PowerWatts <= *idle.PowerWatts || *busy.PowerWatts > 701 {
		t.Errorf("busy GPU: memory %d, power %v: not above idle or above the board's limit", *busy.MemUsedBytes, *busy.PowerWatts)
	}
	again, err := p.Samples(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(samples, again); diff != "" {
		t.Errorf("equal clock gives unequal samples:\n%s", diff)
	}
	later, err := open(t, "fake:2xH100", func(c *fake.Config) { c.Now = at(1001) }).Samples(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if *later[0].TempCelsius == *idle.TempCelsius {
		t.Error("the reading does not move with the clock")
	}
}

func TestUnhealthyGPUReportsNothing(t *testing.T) {
	t.Parallel()
	p := open(t, "fake:2xH100", nil)
	sick := gpu.Health{Reason: "GPU is lost"}
	if err := p.SetHealth(fake.UUID("n1", 0, 0), sick); err != nil {
		t.Fatal(err)
	}
	if got := gpus(t, p)[0].Health; got != sick {
		t.Errorf("health = %+v, want %+v", got, sick)
	}
	samples, err := p.Samples(t.Context())
	if err != nil || len(samples) != 1 || samples[0].UUID != fake.UUID("n1", 0, 1) {
		t.Errorf("Samples = %v, %v, want one, of GPU 1", samples, err)
	}
	if err := p.SetHealth("GPU-none", sick); err == nil {
		t.Error("SetHealth of a foreign UUID: no error")
	}
}

func TestClosedAndCancelled(t *testing.T) {
	t.Parallel()
	p := open(t, "fake:1xL4", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.GPUs(ctx); err == nil {
		t.Error("GPUs with a cancelled context: no error")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Samples(t.Context()); err == nil {
		t.Error("Samples after Close: no error")
	}
}
