//go:build !linux || !cgo

package nvml_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/gpu/nvml"
)

func TestBuildWithoutCgoSaysSo(t *testing.T) {
	t.Parallel()
	c := nvml.NewClient(nvml.Config{Command: []string{os.Args[0]}, Env: []string{probeEnv + "=1"}})
	defer c.Close()
	_, err := c.GPUs(t.Context())
	if !errors.Is(err, gpu.ErrNoDriver) || !strings.Contains(err.Error(), "CGO_ENABLED=1") {
		t.Errorf("GPUs = %v, want ErrNoDriver that names CGO_ENABLED=1", err)
	}
}
