package nvml

import "syscall"

// childAttributes puts the probe into a process group of its own, so that a Ctrl-C at the agent's terminal
// does not look like the death of a driver. The probe ends with its stdin.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
