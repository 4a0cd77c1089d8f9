//go:build linux && cgo

package nvml

import (
	"fmt"
	"slices"

	lib "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// survey lists what work can be placed on: each GPU, or in its place its instances if it is in MIG mode. The admin may
// make and remove instances while the agent runs, so this is done anew for each inventory.
func (l *library) survey(at func(string)) error {
	if err := l.attach(at); err != nil {
		return err
	}
	l.units, l.missing = l.units[:0], nil
	for i := range l.devices {
		d := &l.devices[i]
		if d.missing != "" {
			l.missing = append(l.missing, d.missing)
			continue
		}
		at(d.info.UUID)
		l.divide(d)
		switch {
		case !d.divided:
			l.units = append(l.units, d)
		case len(d.instances) == 0:
			l.missing = append(l.missing, fmt.Sprintf("GPU %s is in MIG mode and has no instance: make some with nvidia-smi mig -cgi PROFILES -C, or end the mode", d.info.UUID))
		}
		for j := range d.instances {
			l.units = append(l.units, &d.instances[j])
		}
	}
	return nil
}

// divide looks up the instances of a GPU in MIG mode. What cannot be asked stays as it was, so that a lost GPU's
// instances are not taken for removed ones.
func (l *library) divide(d *device) {
	if !l.has("nvmlDeviceGetMigMode") || !l.has("nvmlDeviceGetMaxMigDeviceCount") || !l.has("nvmlDeviceGetMigDeviceHandleByIndex") {
		return
	}
	mode, _, ret := d.handle.GetMigMode()
	if ret != lib.SUCCESS {
		return // not supported, as on most boards, or lost
	}
	if d.divided = mode == lib.DEVICE_MIG_ENABLE; !d.divided {
		d.instances = nil
		return
	}
	most, ret := d.handle.GetMaxMigDeviceCount()
	if ret != lib.SUCCESS {
		return
	}
	var found []device
	for i := range most {
		handle, ret := d.handle.GetMigDeviceHandleByIndex(i)
		if ret == lib.ERROR_NOT_FOUND || ret == lib.ERROR_INVALID_ARGUMENT {
			continue // no instance has this place
		}
		if ret != lib.SUCCESS {
			return
		}
		uuid, ret := handle.GetUUID()
		if ret != lib.SUCCESS {
			return
		}
		instance := device{handle: handle}
		if old := slices.IndexFunc(d.instances, func(o device) bool { return o.info.UUID == uuid }); old >= 0 {
			instance.info = d.instances[old].info
		} else {
			instance.info = l.instanceInfo(d, handle, uuid)
		}
		found = append(found, instance)
	}
	d.instances = found
}

// instanceInfo reads what does not change while an instance exists.
func (l *library) instanceInfo(d *device, handle lib.Device, uuid string) gpu.GPU {
	info := d.info
	info.UUID, info.Parent, info.MemBytes = uuid, d.info.UUID, 0
	profile := ""
	if l.has("nvmlDeviceGetName") {
		if name, ret := handle.GetName(); ret == lib.SUCCESS {
			profile = gpu.ProfileFromName(name)
		}
	}
	if l.has("nvmlDeviceGetAttributes_v2", "nvmlDeviceGetAttributes") {
		if a, ret := handle.GetAttributes(); ret == lib.SUCCESS {
			info.MemBytes = int64(a.MemorySizeMB) << 20 // device memory is far below 8 EiB
			if profile == "" {
				profile = gpu.ProfileFromSlices(int(a.ComputeInstanceSliceCount), int(a.GpuInstanceSliceCount), int64(a.MemorySizeMB), l.memoryMiB(d))
			}
		}
	}
	if profile == "" {
		profile = "unknown"
	}
	info.Name += " MIG " + profile
	info.Type = gpu.InstanceType(d.info.Type, profile)
	return info
}

// memoryMiB is the size of a whole GPU's memory, 0 if unknown.
func (l *library) memoryMiB(d *device) int64 {
	if !l.has("nvmlDeviceGetMemoryInfo") {
		return 0
	}
	mem, ret := d.handle.GetMemoryInfo()
	if ret != lib.SUCCESS {
		return 0
	}
	return int64(mem.Total >> 20) // device memory is far below 8 EiB
}

// nvlinked tells whether two GPUs reach each other by NVLink, directly or through a switch. Drivers that do not know
// say no.
func (l *library) nvlinked(a, b *device) bool {
	if !l.has("nvmlDeviceGetP2PStatus") {
		return false
	}
	status, ret := a.handle.GetP2PStatus(b.handle, lib.P2P_CAPS_INDEX_NVLINK)
	return ret == lib.SUCCESS && status == lib.P2P_STATUS_OK
}
