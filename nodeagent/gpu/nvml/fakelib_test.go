//go:build linux && cgo

package nvml_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/gpu/nvml"
)

// Each fake library is compiled once per test run.
var (
	newDriverLib = sync.OnceValues(func() (string, error) { return compile("new") })
	oldDriverLib = sync.OnceValues(func() (string, error) { return compile("old", "-DOLD_DRIVER") })
)

func compile(name string, flags ...string) (string, error) {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
	if err != nil {
		return "", fmt.Errorf("find nvml.h: %w", err)
	}
	dir := filepath.Join(buildDir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	out := filepath.Join(dir, "libnvidia-ml.so.1")
	args := append(flags, "-shared", "-fPIC", "-O1", "-w", "-DNVML_NO_UNVERSIONED_FUNC_DEFS",
		"-I", filepath.Join(strings.TrimSpace(string(module)), "pkg", "nvml"),
		"-Wl,-soname,libnvidia-ml.so.1", "-o", out, filepath.Join("testdata", "fakenvml", "fakenvml.c"))
	if text, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the fake NVML: %w\n%s", err, text)
	}
	return out, nil
}

// rig is a fake driver and a client on it.
type rig struct {
	client *nvml.Client
	state  string
}

// newRig starts a client whose child loads the fake library; change may adjust the config.
func newRig(t *testing.T, lib func() (string, error), state string, change func(*nvml.Config)) *rig {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed (apt-get install gcc): the fake NVML cannot be compiled")
	}
	path, err := lib()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{state: filepath.Join(t.TempDir(), "state")}
	r.set(t, state)
	cfg := nvml.Config{
		Command: []string{os.Args[0]}, Env: []string{probeEnv + "=1", "FAKE_NVML_STATE=" + r.state}, Library: path,
		BackoffMin: time.Millisecond, BackoffMax: 10 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	r.client = nvml.NewClient(cfg)
	t.Cleanup(func() {
		if err := r.client.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// set replaces the fake driver's state in one step, so that the library never reads half a file.
func (r *rig) set(t *testing.T, state string) {
	t.Helper()
	next := r.state + ".next"
	if err := os.WriteFile(next, []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, r.state); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) gpus(t *testing.T) []gpu.GPU {
	t.Helper()
	gpus, err := r.client.GPUs(t.Context())
	if err != nil {
		t.Fatalf("GPUs: %v", err)
	}
	return gpus
}

// until asks for the inventory until ok accepts it. The pause between two looks is only politeness: the
// condition decides, and the deadline bounds it.
func (r *rig) until(t *testing.T, what string, ok func([]gpu.GPU) bool) []gpu.GPU {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		gpus := r.gpus(t)
		if ok(gpus) {
			return gpus
		}
		if time.Now().After(deadline) {
			t.Fatalf("not seen in 20 s: %s; last inventory %+v", what, gpus)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// sick lists the indexes of unhealthy GPUs.
func sick(gpus []gpu.GPU) string {
	var out []string
	for _, g := range gpus {
		if !g.Health.Healthy {
			out = append(out, fmt.Sprint(g.Index))
		}
	}
	return strings.Join(out, " ")
}
