package nvml_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/gangline/gangline/nodeagent/gpu/nvml"
)

// probeEnv makes the test binary behave as "gangline gpu-probe".
const probeEnv = "GANGLINE_TEST_GPU_PROBE"

// buildDir holds what tests compile; TestMain makes and removes it.
var buildDir string

func TestMain(m *testing.M) {
	if os.Getenv(probeEnv) != "" {
		os.Exit(nvml.ProbeMain(os.Stdin, os.Stdout))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gangline-nvml-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	buildDir = dir
	status := m.Run()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}
