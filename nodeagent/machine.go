package nodeagent

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// machine is what the node has beside GPUs.
type machine struct {
	bootID      string
	cpuMilli    int64
	memoryBytes int64
}

// readMachine asks the kernel; figures in the configuration win.
func readMachine(cfg Config) (machine, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return machine{}, fmt.Errorf("read the machine's boot id: %w", err)
	}
	m := machine{bootID: strings.TrimSpace(string(boot)), cpuMilli: cfg.CPUMilli, memoryBytes: cfg.MemoryBytes}
	if m.cpuMilli == 0 {
		m.cpuMilli = int64(runtime.GOMAXPROCS(0)) * 1000 // heeds affinity and the cgroup's quota
	}
	if m.memoryBytes == 0 {
		info, err := os.ReadFile("/proc/meminfo")
		if err != nil {
			return machine{}, fmt.Errorf("read the machine's memory: %w", err)
		}
		if m.memoryBytes, err = totalMemory(info); err != nil {
			return machine{}, err
		}
		if limit, ok := cgroupMemory(); ok {
			m.memoryBytes = min(m.memoryBytes, limit)
		}
	}
	return m, nil
}

// totalMemory finds "MemTotal:  16303428 kB" in /proc/meminfo.
func totalMemory(meminfo []byte) (int64, error) {
	lines := bufio.NewScanner(bytes.NewReader(meminfo))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read the machine's memory: /proc/meminfo has no MemTotal: set the agent's memory by hand")
}

// cgroupMemory is the memory limit of the container that the agent runs in, if there is one. Inside a container with
// its own cgroup namespace the limit lies at the root.
func cgroupMemory() (int64, bool) {
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return 0, false
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return limit, err == nil
}
