//go:build linux && cgo

package nvml_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// types lists index, type and health of an inventory, such as "0:h100 1:h100-1g.10gb!" with ! for an unhealthy one.
func types(gpus []gpu.GPU) string {
	var out []string
	for _, g := range gpus {
		text := fmt.Sprintf("%d:%s", g.Index, g.Type)
		if !g.Health.Healthy {
			text += "!"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestNVLinkIslands(t *testing.T) {
	t.Parallel()
	for state, want := range map[string][]int{
		"gpus 4\n": {0, 0, 0, 0}, // no NVLink, and sockets unknown
		"gpus 4\n0 link 1 2 3\n1 link 2 3\n2 link 3\n": {0, 0, 0, 0},
		"gpus 4\n0 link 2\n1 link 3\n":                 {0, 1, 0, 1},
		"gpus 4\n0 link 1\n":                           {0, 0, 1, 2},
	} {
		var got []int
		for _, g := range newRig(t, newDriverLib, state, nil).gpus(t) {
			got = append(got, g.Island)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: islands (-want +got):\n%s", state, diff)
		}
	}
}

func TestInstancesStandInTheirGPUsPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "gpus 3\n0 link 2\n1 mig 1g.10gb - 3g.40gb\n1 util 50\n2 util 97\n", nil)
	got := r.gpus(t)
	if want := "0:h100 1:h100-1g.10gb 1:h100-3g.40gb 2:h100"; types(got) != want {
		t.Fatalf("got %s, want %s", types(got), want)
	}
	g := got[2]
	want := gpu.GPU{
		UUID: g.UUID, Parent: "GPU-00000000-0000-4000-8000-000000000001", Index: 1, Minor: 11, PCIBusID: "00fe:3b:00.0",
		Type: "h100-3g.40gb", Name: "NVIDIA H100 80GB HBM3 MIG 3g.40gb", MemBytes: (40<<10 - 256) << 20, NUMANode: gpu.NUMAUnknown,
		Island: 1, DriverVersion: "570.86.15", Health: gpu.Health{Healthy: true},
	}
	if diff := cmp.Diff(want, g); diff != "" || !gpu.IsInstance(g.UUID) {
		t.Errorf("instance %s (-want +got):\n%s", g.UUID, diff)
	}
	if got[0].Island != 0 || got[3].Island != 0 {
		t.Errorf("islands of the whole GPUs: %d and %d, want 0", got[0].Island, got[3].Island)
	}
	samples, err := r.client.Samples(t.Context())
	if err != nil || len(samples) != 4 {
		t.Fatalf("samples %+v, %v, want 4", samples, err)
	}
	for i, s := range samples {
		if s.UUID != got[i].UUID || s.MemUsedBytes == nil || (s.PowerWatts == nil) != gpu.IsInstance(s.UUID) {
			t.Errorf("sample %d: %+v, want memory, and power of whole GPUs alone", i, s)
		}
	}
}

// TestProfileWithoutAName: older drivers name an instance as its GPU.
func TestProfileWithoutAName(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "gpus 1\n0 plain 1\n0 mig 1g.10gb 1c.3g.40gb 1g.20gb\n", nil)
	got := strings.Fields(types(r.gpus(t)))
	for _, want := range []string{"0:h100-1g.10gb", "0:h100-1c.3g.40gb", "0:h100-1g.20gb"} {
		if !strings.Contains(" "+strings.Join(got, " ")+" ", " "+want+" ") {
			t.Errorf("no %s in %v", want, got)
		}
	}
}

// TestInstancesComeAndGo: an admin divides GPUs in another way while the agent runs.
func TestInstancesComeAndGo(t *testing.T) {
	t.Parallel()
	r := newRig(t, newDriverLib, "gpus 2\n", nil)
	for _, step := range []struct{ what, state, want string }{
		{"whole", "gpus 2\n", "0:h100 1:h100"},
		{"divided", "gpus 2\n1 mig 3g.40gb 3g.40gb\n", "0:h100 1:h100-3g.40gb 1:h100-3g.40gb"},
		{"one removed", "gpus 2\n1 mig - 3g.40gb\n", "0:h100 1:h100-3g.40gb"},
		{"in another way", "gpus 2\n1 mig 1g.10gb\n", "0:h100 1:h100-1g.10gb"},
		{"lost, which removes nothing", "gpus 2\n1 mig 1g.10gb\n1 lost 1\n", "0:h100 1:h100-1g.10gb!"},
		{"well again", "gpus 2\n1 mig 1g.10gb\n", "0:h100 1:h100-1g.10gb"},
		{"no instance left", "gpus 2\n1 mig -\n", "0:h100 1:h100-1g.10gb!"},
		{"whole again", "gpus 2\n", "0:h100 1:h100"},
	} {
		r.set(t, step.state)
		if got := r.gpus(t); types(got) != step.want {
			t.Errorf("%s: %s, want %s", step.what, types(got), step.want)
		} else if step.what == "no instance left" && !strings.Contains(got[1].Health.Reason, "nvidia-smi mig -cgi") {
			t.Errorf("%s: reason %q does not say what to do", step.what, got[1].Health.Reason)
		}
	}
}
