package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is searched when the worker's environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// startWorker starts the worker's main process in its own process group, its standard input empty, its outputs going
// to the two pipes, and nothing else open. The error is a complete sentence for the researcher.
func startWorker(spec Spec, token string, stdout, stderr *os.File) (int, error) {
	if err := checkDir(spec.Dir); err != nil {
		return 0, err
	}
	path, err := lookCommand(spec.Command[0], spec.Dir, spec.Env)
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("run %q: %w", spec.Command[0], err)
	}
	defer null.Close() //nolint:errcheck // nothing was written
	pid, err := syscall.ForkExec(path, spec.Command, &syscall.ProcAttr{
		Dir:   spec.Dir,
		Env:   append(append([]string{}, spec.Env...), tokenEnv+"="+token),
		Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return 0, explainExec(path, err)
	}
	return pid, nil
}

func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("working directory %q does not exist on this node: "+
			"submit from a directory that every node shares, or create it on the node", dir)
	}
	if err != nil {
		return fmt.Errorf("working directory %q cannot be used: %w: check its permissions", dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("working directory %q is a file: name a directory", dir)
	}
	if err := unix.Access(dir, unix.X_OK); err != nil {
		return fmt.Errorf("working directory %q cannot be entered: %w: check its permissions", dir, err)
	}
	return nil
}

// lookCommand finds the program as the worker's own shell would: a name with "/" counts from its working directory,
// any other is searched in its PATH. Empty PATH entries (the current directory) are skipped, as in os/exec.
func lookCommand(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		err := executable(path)
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("run %q: there is no file %s on this node: check the path, "+
				"and that the file is on a file system that every node shares", name, path)
		}
		if err != nil {
			return "", fmt.Errorf("run %q: %s cannot be executed: %w: "+
				"make it executable (chmod +x), or run it by its interpreter", name, path, err)
		}
		return path, nil
	}
	search := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v // the last one counts, as in execve with duplicates removed by os/exec
		}
	}
	var denied string
	for _, d := range filepath.SplitList(search) {
		if d == "" {
			continue
		}
		path := filepath.Join(d, name)
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, os.ErrNotExist) && denied == "" {
			denied = fmt.Sprintf(" (%s exists but cannot be executed: %v)", path, err)
		}
	}
	return "", fmt.Errorf("run %q: no such command in PATH %q on this node%s: "+
		"check the spelling, give the full path, or set PATH in the job's env", name, search, denied)
}

// executable returns nil if path is a file that this user may execute.
func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			return os.ErrNotExist
		}
		return err
	}
	if info.IsDir() {
		return unix.EISDIR
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	if info.Mode().Perm()&0o111 == 0 {
		return unix.EACCES
	}
	return unix.Access(path, unix.X_OK)
}

// explainExec turns the kernel's refusal of an existing file into advice.
func explainExec(path string, err error) error {
	advice := "ask the node's admin"
	switch {
	case errors.Is(err, unix.ENOEXEC):
		advice = `the file is no program for this machine: begin a script with a "#!" line, ` +
			"and build programs for this machine's processor"
	case errors.Is(err, unix.ENOENT):
		advice = `the interpreter named in its "#!" line, or its dynamic loader, is not on this node`
	case errors.Is(err, unix.EACCES):
		advice = "its file system may be mounted noexec, or a directory above it may not be entered"
	case errors.Is(err, unix.E2BIG):
		advice = "arguments and environment together are too large for the kernel: pass big values in files"
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM):
		advice = "the node is out of processes or memory"
	}
	return fmt.Errorf("run %s: %w: %s", path, err, advice)
}
