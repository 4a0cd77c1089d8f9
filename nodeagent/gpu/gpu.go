package gpu

import (
	"context"
	"errors"
	"strings"
)

// ErrNoDriver means that this node can show no GPU: no NVML library, no kernel driver, or a build without cgo.
// A caller that accepts nodes without GPUs treats it as an empty inventory.
var ErrNoDriver = errors.New("no usable NVIDIA driver on this node")

// NUMAUnknown is GPU.NUMANode where the platform does not tell.
const NUMAUnknown = -1

// instancePrefix begins the UUID of a MIG instance.
const instancePrefix = "MIG-"

// IsInstance tells whether the UUID is that of a MIG instance and not of a whole GPU.
func IsInstance(uuid string) bool { return strings.HasPrefix(uuid, instancePrefix) }

// GPU is one GPU, or one MIG instance of a GPU, as the inventory shows it. A GPU in MIG mode is shown by its instances
// alone. It is a plain value; copies share nothing.
type GPU struct {
	// UUID is the identity in NVML form, "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", or with MIG- for an instance.
	// Never empty.
	UUID string `json:"uuid"`
	// Parent is the UUID of the GPU that a MIG instance is a part of; empty for a whole GPU, or if unknown.
	Parent string `json:"parent,omitempty"`
	// Index is NVML's index of the GPU, from 0. It may change from one boot to the next: never store it.
	Index int `json:"index"`
	// Minor is N of /dev/nvidiaN, or -1 if unknown.
	Minor int `json:"minor"`
	// PCIBusID is the address in sysfs form, "0000:3b:00.0", or empty if unknown.
	PCIBusID string `json:"pci_bus_id,omitempty"`
	// Type is the word that job specs use, such as "h100" (see TypeFromName), or "h100-1g.10gb" for a MIG instance (see
	// InstanceType). Never empty.
	Type string `json:"type"`
	// Name is the product name, such as "NVIDIA H100 80GB HBM3".
	Name string `json:"name"`
	// MemBytes is the size of the device memory in bytes, 0 if unknown.
	MemBytes int64 `json:"mem_bytes"`
	// NUMANode is the NUMA node of the host that the GPU hangs off, or NUMAUnknown.
	NUMANode int `json:"numa_node"`
	// Island is the number, from 0, of the NVLink island in which the GPU lies: those of one island reach each other
	// faster than others. On a node without NVLink the GPUs of one NUMA node are an island.
	Island int `json:"island"`
	// DriverVersion is the kernel driver's version, such as "570.86.15"; empty if unknown.
	DriverVersion string `json:"driver_version,omitempty"`
	// Health tells whether work may be placed on this GPU.
	Health Health `json:"health"`
}

// Health is the verdict on one GPU. The zero value is unhealthy without a reason, so that a forgotten
// verdict keeps work away from the GPU and not the other way round.
type Health struct {
	// Healthy tells whether new work may use the GPU.
	Healthy bool `json:"healthy"`
	// Reason is a sentence for people; empty when Healthy.
	Reason string `json:"reason,omitempty"`
}

// Sample is one reading of one GPU. A nil field was not reported by the GPU: it must not be shown as zero.
type Sample struct {
	// UUID names the GPU.
	UUID string `json:"uuid"`
	// UtilPct is the share of the last sampling period in which a kernel ran, 0..100.
	UtilPct *float64 `json:"util_pct,omitempty"`
	// MemUsedBytes is the device memory in use, in bytes.
	MemUsedBytes *int64 `json:"mem_used_bytes,omitempty"`
	// PowerWatts is the board's power draw.
	PowerWatts *float64 `json:"power_watts,omitempty"`
	// TempCelsius is the temperature of the GPU die.
	TempCelsius *float64 `json:"temp_celsius,omitempty"`
	// SMClockMHz is the clock of the streaming multiprocessors.
	SMClockMHz *float64 `json:"sm_clock_mhz,omitempty"`
}

// Empty tells whether the sample holds no reading at all; a Prober leaves such samples out.
func (s Sample) Empty() bool {
	return s.UtilPct == nil && s.MemUsedBytes == nil && s.PowerWatts == nil && s.TempCelsius == nil && s.SMClockMHz == nil
}

// Prober shows the GPUs of this node. All methods may be called concurrently and end when ctx does.
type Prober interface {
	// GPUs returns the inventory, sorted by Index, then UUID, with the health of each GPU. A GPU that was seen once and
	// answers no more stays in the list as unhealthy. The error wraps ErrNoDriver if the node cannot show
	// GPUs at all. Zero GPUs without an error is a valid answer.
	GPUs(ctx context.Context) ([]GPU, error)
	// Samples returns one sample for each GPU that reported something. On an error nothing was read.
	Samples(ctx context.Context) ([]Sample, error)
	// Close releases what the prober holds. Calls after Close return an error.
	Close() error
}

// None is the Prober of a node without GPUs.
type None struct{}

// GPUs returns no GPU.
func (None) GPUs(context.Context) ([]GPU, error) { return nil, nil }

// Samples returns no sample.
func (None) Samples(context.Context) ([]Sample, error) { return nil, nil }

// Close does nothing.
func (None) Close() error { return nil }
