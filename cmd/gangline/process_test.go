package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

// processesOf returns the living processes whose command line or environment
// names the directory: agents, supervisors and workers.
func processesOf(dir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil || pid == os.Getpid() {
			continue
		}
		for _, file := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err == nil && bytes.Contains(b, []byte(dir+"/")) && startTime(pid) != "" {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// startTime is what tells a process from a later one of the same number; ""
// if there is no such process or it is dead and waits for its parent.
func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

// nextPort hands out ports below the range from which kernels choose ports for
// outgoing connections, so that none is taken between its choice and its use, nor
// while its server is stopped: tests of package replica have those below 20000,
// and another run of these tests begins elsewhere.
var nextPort = struct { // shared by parallel tests
	sync.Mutex
	port int
}{port: 20000 + os.Getpid()*512%8000}

func freeAddress(t testing.TB) string {
	t.Helper()
	nextPort.Lock()
	defer nextPort.Unlock()
	for range 1000 {
		nextPort.port++
		addr := fmt.Sprintf("127.0.0.1:%d", nextPort.port)
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close() // it only tried the port
			return addr
		}
	}
	t.Fatal("no free port on loopback")
	return ""
}
