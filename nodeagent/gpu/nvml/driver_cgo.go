//go:build linux && cgo

package nvml

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	lib "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// defaultLibrary is the name under which every NVIDIA driver installs NVML.
const defaultLibrary = "libnvidia-ml.so.1"

// library calls NVML; only the child's answering goroutine uses it. Every NVML function is called only after
// has found it, because calling one that the driver lacks ends the process with status 127.
type library struct {
	symbols *dl.DynamicLibrary
	api     lib.Interface
	version string
	devices []device
	units   []*device // of the last survey: devices and instances of such
	missing []string  // of the last survey: what is in no unit, and why
}

// device is one attached GPU, or one MIG instance of one.
type device struct {
	handle lib.Device
	info   gpu.GPU
	// missing says why the device could not be identified; empty if info is good.
	missing string
	// divided tells that the GPU is in MIG mode; instances are what it is divided into.
	divided   bool
	instances []device
}

func newDriver() driver { return &library{} }

// has tells whether the library exports the function under any of the names. (go-nvml's own LookupSymbol
// answers only after nvmlInit, which must be guarded too, so this asks the dynamic linker.)
func (l *library) has(names ...string) bool {
	for _, name := range names {
		if l.symbols.Lookup(name) == nil {
			return true
		}
	}
	return false
}

// text puts a return value into words without calling a function that may be missing.
func (l *library) text(ret lib.Return) string {
	if l.has("nvmlErrorString") {
		return ret.Error()
	}
	return "NVML return value " + strconv.Itoa(int(ret))
}

func (l *library) init(path string) error {
	if path == "" {
		path = defaultLibrary
	}
	l.symbols = dl.New(path, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := l.symbols.Open(); err != nil {
		return &probeError{codeNoLibrary, fmt.Sprintf("load NVML: %v: install the NVIDIA driver, or name the library's path", err)}
	}
	if !l.has("nvmlInit_v2", "nvmlInit") || !l.has("nvmlDeviceGetCount_v2", "nvmlDeviceGetCount") ||
		!l.has("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex") || !l.has("nvmlDeviceGetUUID") {
		return &probeError{codeNoLibrary, fmt.Sprintf("load NVML: %s lacks functions that every driver has: name the right library's path", path)}
	}
	l.api = lib.New(lib.WithLibraryPath(path))
	switch ret := l.api.Init(); ret {
	case lib.SUCCESS:
	case lib.ERROR_DRIVER_NOT_LOADED:
		return &probeError{codeNoDriver, "start NVML: the NVIDIA kernel driver is not loaded: modprobe nvidia, or run nvidia-smi as root"}
	case lib.ERROR_LIB_RM_VERSION_MISMATCH:
		return &probeError{codeFailed, "start NVML: library and kernel driver are of different versions (an upgrade without reboot): reboot the node"}
	default:
		return &probeError{codeFailed, "start NVML: " + l.text(ret)}
	}
	if l.has("nvmlSystemGetDriverVersion") {
		if v, ret := l.api.SystemGetDriverVersion(); ret == lib.SUCCESS {
			l.version = v
		}
	}
	return nil
}

// attach identifies the devices, once per process: a lost device keeps the identity that it had when it was
// well, and the parent starts a new process to look for devices that came back.
func (l *library) attach(at func(string)) error {
	if l.devices != nil {
		return nil
	}
	if l.api == nil {
		return errors.New("NVML is not started: the agent must send init first")
	}
	count, ret := l.api.DeviceGetCount()
	if ret != lib.SUCCESS {
		return fmt.Errorf("count GPUs: %s", l.text(ret))
	}
	devices := make([]device, 0, count)
	for i := range count {
		at(fmt.Sprintf("index %d", i))
		devices = append(devices, l.identify(i))
	}
	l.devices = devices
	l.placeOnIslands()
	return nil
}

// placeOnIslands finds out which of the devices lie together.
func (l *library) placeOnIslands() {
	var known []*device
	var numa []int
	for i := range l.devices {
		if d := &l.devices[i]; d.missing == "" {
			known, numa = append(known, d), append(numa, d.info.NUMANode)
		}
	}
	for i, island := range islands(numa, func(a, b int) bool { return l.nvlinked(known[a], known[b]) }) {
		known[i].info.Island = island
	}
}

// identify reads what does not change while the device is attached.
func (l *library) identify(index int) device {
	handle, ret := l.api.DeviceGetHandleByIndex(index)
	if ret != lib.SUCCESS {
		return device{missing: fmt.Sprintf("GPU at index %d cannot be opened: %s", index, l.text(ret))}
	}
	uuid, ret := handle.GetUUID()
	if ret != lib.SUCCESS {
		return device{missing: fmt.Sprintf("GPU at index %d does not tell its UUID: %s", index, l.text(ret))}
	}
	info := gpu.GPU{UUID: uuid, Index: index, Minor: -1, NUMANode: gpu.NUMAUnknown, DriverVersion: l.version}
	if l.has("nvmlDeviceGetName") {
		if name, ret := handle.GetName(); ret == lib.SUCCESS {
			info.Name = name
		}
	}
	info.Type = gpu.TypeFromName(info.Name)
	if l.has("nvmlDeviceGetMinorNumber") {
		if minor, ret := handle.GetMinorNumber(); ret == lib.SUCCESS {
			info.Minor = minor
		}
	}
	if l.has("nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", "nvmlDeviceGetPciInfo") {
		if pci, ret := handle.GetPciInfo(); ret == lib.SUCCESS {
			info.PCIBusID = fmt.Sprintf("%04x:%02x:%02x.0", pci.Domain, pci.Bus, pci.Device)
			info.NUMANode = numaNode(pciDevices, info.PCIBusID)
		}
	}
	return device{handle: handle, info: info}
}

func (l *library) gpus(at func(string)) ([]gpu.GPU, []string, error) {
	if err := l.survey(at); err != nil {
		return nil, nil, err
	}
	var gpus []gpu.GPU
	for _, d := range l.units {
		at(d.info.UUID)
		d.info.Health = l.health(d)
		gpus = append(gpus, d.info)
	}
	return gpus, l.missing, nil
}

// health asks for the memory, which makes the driver talk to the device: a lost one says so.
func (l *library) health(d *device) gpu.Health {
	if !l.has("nvmlDeviceGetMemoryInfo") {
		return gpu.Health{Healthy: true}
	}
	mem, ret := d.handle.GetMemoryInfo()
	switch ret {
	case lib.SUCCESS:
		d.info.MemBytes = int64(mem.Total) // device memory is far below 8 EiB
		return gpu.Health{Healthy: true}
	case lib.ERROR_NOT_SUPPORTED: // boards that share the host's memory
		return gpu.Health{Healthy: true}
	case lib.ERROR_GPU_IS_LOST:
		return gpu.Health{Reason: "the GPU is lost (fell off the bus): drain the node and reboot it"}
	case lib.ERROR_RESET_REQUIRED:
		return gpu.Health{Reason: "the GPU needs a reset: drain the node, then nvidia-smi --gpu-reset or reboot"}
	default:
		return gpu.Health{Reason: "the GPU does not answer: " + l.text(ret)}
	}
}

func (l *library) samples(at func(string)) ([]gpu.Sample, error) {
	if l.devices == nil {
		if err := l.survey(at); err != nil {
			return nil, err
		}
	}
	var samples []gpu.Sample
	for _, d := range l.units {
		at(d.info.UUID)
		if s := l.sample(*d); !s.Empty() {
			samples = append(samples, s)
		}
	}
	return samples, nil
}

// sample reads what the device reports; what it does not report stays nil.
func (l *library) sample(d device) gpu.Sample {
	s := gpu.Sample{UUID: d.info.UUID}
	if l.has("nvmlDeviceGetUtilizationRates") {
		if v, ret := d.handle.GetUtilizationRates(); ret == lib.SUCCESS && v.Gpu <= 100 {
			s.UtilPct = new(float64(v.Gpu))
		}
	}
	if l.has("nvmlDeviceGetMemoryInfo") {
		if v, ret := d.handle.GetMemoryInfo(); ret == lib.SUCCESS {
			s.MemUsedBytes = new(int64(v.Used)) // device memory is far below 8 EiB
		}
	}
	if l.has("nvmlDeviceGetPowerUsage") {
		if mw, ret := d.handle.GetPowerUsage(); ret == lib.SUCCESS {
			s.PowerWatts = new(float64(mw) / 1000)
		}
	}
	if l.has("nvmlDeviceGetTemperature") {
		if v, ret := d.handle.GetTemperature(lib.TEMPERATURE_GPU); ret == lib.SUCCESS {
			s.TempCelsius = new(float64(v))
		}
	}
	if l.has("nvmlDeviceGetClockInfo") {
		if v, ret := d.handle.GetClockInfo(lib.CLOCK_SM); ret == lib.SUCCESS {
			s.SMClockMHz = new(float64(v))
		}
	}
	return s
}
