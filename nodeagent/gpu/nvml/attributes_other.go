//go:build !linux

package nvml

import "syscall"

// childAttributes asks for nothing special: the probe is a stub on this system.
func childAttributes() *syscall.SysProcAttr { return nil }
