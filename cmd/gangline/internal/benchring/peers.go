package benchring

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed peers/gloo.py
var glooScript []byte

//go:embed peers/ompi.c
var ompiSource []byte

// python is Debian's: the torch of its packages is for that one.
const python = "/usr/bin/python3"

// roundLimit bounds one round of one contender: something that hangs must not hang the measurement.
const roundLimit = 5 * time.Minute

// contender runs all its ranks once and returns the times of each, or of the slowest.
type contender func(ctx context.Context, warmup, calls int) ([]Times, error)

// missingError says that a peer is not installed.
type missingError struct{ what, install string }

func (e *missingError) Error() string {
	return fmt.Sprintf("%s is not installed: apt-get install --no-install-recommends %s", e.what, e.install)
}

// gloo is PyTorch's all-reduce over TCP on loopback, one thread for each rank.
func (r *runner) gloo(context.Context) (contender, error) {
	if exec.Command(python, "-c", "import torch.distributed").Run() != nil { //nolint:noctx // a moment
		return nil, &missingError{"PyTorch", "python3-torch"}
	}
	script := filepath.Join(r.dir, "gloo.py")
	if err := os.WriteFile(script, glooScript, 0o600); err != nil {
		return nil, err
	}
	return func(ctx context.Context, warmup, calls int) ([]Times, error) {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		return all(r.cfg.Ranks, func(rank int) (t Times, err error) {
			words := r.net.within(rank, append([]string{python, script, r.net.address(0)}, numbersText(rank, r.cfg.Ranks, port, r.cfg.Bytes, warmup, calls)...)...)
			cmd := exec.CommandContext(ctx, words[0], words[1:]...) //nolint:gosec // our own script
			cmd.Env = append(os.Environ(), "GLOO_SOCKET_IFNAME="+r.net.device(), "OMP_NUM_THREADS=1")
			return t, decode(cmd, &t)
		})
	}, nil
}

// ompi is Open MPI's all-reduce by the given transports.
func (r *runner) ompi(btl ...string) func(context.Context) (contender, error) {
	return func(ctx context.Context) (contender, error) {
		program := filepath.Join(r.dir, "ompi")
		if _, err := os.Stat(program); err != nil {
			for _, tool := range []string{"mpicc.openmpi", "mpirun.openmpi"} {
				if _, err := exec.LookPath(tool); err != nil {
					return nil, &missingError{"Open MPI", "openmpi-bin libopenmpi-dev gcc"}
				}
			}
			source := program + ".c"
			if err := os.WriteFile(source, ompiSource, 0o600); err != nil {
				return nil, err
			}
			if text, err := exec.CommandContext(ctx, "mpicc.openmpi", "-O2", "-o", program, source).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("compile the peer with mpicc: %w: %s", err, text)
			}
		}
		return func(ctx context.Context, warmup, calls int) ([]Times, error) {
			args := []string{
				"--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
				"--mca", "pml", "ob1", "-np", strconv.Itoa(r.cfg.Ranks),
			}
			args = append(append(args, btl...), program)
			var t Times
			err := decode(exec.CommandContext(ctx, "mpirun.openmpi", append(args, numbersText(r.cfg.Bytes, warmup, calls)...)...), &t) //nolint:gosec // our own program
			return []Times{t}, err
		}, nil
	}
}

// decode runs a command and reads the JSON that it prints.
func decode(cmd *exec.Cmd, to any) error {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, tail(errs.Bytes()))
	}
	return json.Unmarshal(out.Bytes(), to)
}

// tail is the end of what a program said.
func tail(text []byte) []byte {
	text = bytes.TrimSpace(text)
	return text[max(0, len(text)-2000):]
}

// all runs one function for each rank at once.
func all(ranks int, run func(rank int) (Times, error)) ([]Times, error) {
	times, errs := make([]Times, ranks), make([]error, ranks)
	done := make(chan struct{})
	for r := range ranks {
		go func() {
			times[r], errs[r] = run(r)
			done <- struct{}{}
		}()
	}
	for range ranks {
		<-done
	}
	return times, errors.Join(errs...)
}

func numbersText(numbers ...int) []string {
	out := make([]string, len(numbers))
	for i, n := range numbers {
		out[i] = strconv.Itoa(n)
	}
	return out
}

// freePort returns a port of loopback that nobody had a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a moment
	if err != nil {
		return 0, err
	}
	_, text, err := net.SplitHostPort(l.Addr().String())
	port, perr := strconv.Atoi(text)
	return port, errors.Join(err, perr, l.Close())
}
