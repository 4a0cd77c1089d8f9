package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

const (
	// commandWithin bounds a job's command that prints its key: it asks some other service, and a commit waits for it.
	commandWithin = 30 * time.Second
	// commandDrain is how long its pipes may stay open after its end, or its kill.
	commandDrain = time.Second
	// maxKeyText bounds what it may print: keys have 32 bytes, in text some more.
	maxKeyText = 4096
)

// keyring keeps a job's keys in memory, by where the job says that they are, for as long as its watch. One goroutine uses it at a time.
type keyring struct {
	known map[string]*checkpoint.Key
}

// openWithKeys opens the job's checkpoints with its keys, for a program's own files: they are not encrypted, but what lists them is authenticated.
func (j *Job) openWithKeys(ctx context.Context, ring *keyring) (*checkpoint.Store, error) {
	return j.openAs(ctx, ring, (*checkpoint.Config).KeysFromEnv)
}

// Opener opens a job's checkpoints for a program's own files, with its keys, which it keeps in memory. One goroutine uses what it gives at a time.
func Opener(job Job) func(ctx context.Context) (*checkpoint.Store, error) {
	ring := &keyring{}
	return func(ctx context.Context) (*checkpoint.Store, error) { return job.openWithKeys(ctx, ring) }
}

// openToWrite opens the job's checkpoints for shards, which are stored as the worker's environment says.
func (j *Job) openToWrite(ctx context.Context, ring *keyring) (*checkpoint.Store, error) {
	return j.openAs(ctx, ring, (*checkpoint.Config).FromEnvBy)
}

func (j *Job) openAs(ctx context.Context, ring *keyring, read func(*checkpoint.Config, func(string) string, func(string) (*checkpoint.Key, error)) error) (*checkpoint.Store, error) {
	cfg, err := j.config()
	if err != nil {
		return nil, err
	}
	if j.Environ != nil {
		env, dir := j.Environ()
		getenv := lookup(env)
		err := read(&cfg, getenv, func(ref string) (*checkpoint.Key, error) { return ring.load(ctx, ref, env, dir) })
		if err != nil {
			return nil, err
		}
	}
	return checkpoint.Open(cfg)
}

// lookup asks an environment.
func lookup(env []string) func(string) string {
	return func(name string) string {
		for _, set := range slices.Backward(env) { // the last one counts
			if value, is := strings.CutPrefix(set, name+"="); is {
				return value
			}
		}
		return ""
	}
}

// load gives a key of the job. A command runs as the job's own processes do: as the same user, in their environment and working directory.
func (r *keyring) load(ctx context.Context, ref string, env []string, dir string) (*checkpoint.Key, error) {
	if k := r.known[ref]; k != nil {
		return k, nil
	}
	var k *checkpoint.Key
	var err error
	if command, is := strings.CutPrefix(ref, "command:"); is {
		k, err = keyOf(ctx, command, env, dir)
	} else {
		k, err = checkpoint.LoadKey(ctx, ref, lookup(env))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", checkpoint.ErrKey, err)
	}
	if r.known == nil {
		r.known = map[string]*checkpoint.Key{}
	}
	r.known[ref] = k
	return k, nil
}

// keyOf runs a command that prints a key. Nothing that it prints goes into a log or an error, standard error included: secrets end there too.
func keyOf(ctx context.Context, command string, env []string, dir string) (*checkpoint.Key, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = "/" // the worker's own has gone with it
	}
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env, cmd.Dir, cmd.WaitDelay = env, dir, commandDrain
	cmd.Stdout = &atMost{buf: &out}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("the command that gives the key, %.200q, run by the agent on this node within %v: %w: run it there by hand to see what it says", command, commandWithin, err)
	}
	k, err := checkpoint.ParseKey(out.Bytes())
	if err != nil {
		return nil, fmt.Errorf("the command that gives the key, %.200q: %w", command, err)
	}
	return k, nil
}

// atMost takes maxKeyText bytes and then fails.
type atMost struct{ buf *bytes.Buffer }

// Write takes what fits.
func (a *atMost) Write(p []byte) (int, error) {
	if a.buf.Len()+len(p) > maxKeyText {
		return 0, errors.New("it prints too much for a key")
	}
	return a.buf.Write(p)
}
