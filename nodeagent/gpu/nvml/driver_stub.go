//go:build !linux || !cgo

package nvml

import "github.com/gangline/gangline/nodeagent/gpu"

// noDriver answers in builds that cannot call NVML.
type noDriver struct{}

func newDriver() driver { return noDriver{} }

func (noDriver) init(string) error {
	return &probeError{codeNoCgo, "this gangline was built without NVML: build it on Linux with CGO_ENABLED=1 and a C compiler"}
}

func (d noDriver) gpus(func(string)) ([]gpu.GPU, []string, error) { return nil, nil, d.init("") }

func (d noDriver) samples(func(string)) ([]gpu.Sample, error) { return nil, d.init("") }
