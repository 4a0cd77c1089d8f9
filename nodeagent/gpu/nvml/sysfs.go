package nvml

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// pciDevices is where Linux tells the NUMA node of a PCI device.
const pciDevices = "/sys/bus/pci/devices"

// numaNode reads the NUMA node of a PCI device from sysfs, which says -1 itself where the firmware is silent.
func numaNode(root, busID string) int {
	text, err := os.ReadFile(filepath.Join(root, busID, "numa_node")) // path from a bus address
	if err != nil {
		return gpu.NUMAUnknown
	}
	node, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || node < 0 {
		return gpu.NUMAUnknown
	}
	return node
}
