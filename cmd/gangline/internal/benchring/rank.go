package benchring

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// Task is what one rank is told, as a line of JSON on its standard input.
type Task struct {
	Rank, Ranks int
	Bytes       int
	Type        string
	Path        string
	Secret      []byte
	Host        string // to listen at
	Wire        string // form of the elements
	Machine     string // to be taken for; empty: this one
	Alloc       bool   // let the group allocate the vector
	Warmup      int    // calls that are not counted
	Calls       int
}

// Times is what one rank tells, as a line of JSON on its standard output.
type Times struct {
	Seconds []float64 // of each call
	CPU     float64   // seconds of processor time in all counted calls, as far as they were asked about
	Checked int       // results that were right
}

// Rank is the life of one of our ranks: it reads its task, tells its address, reads all addresses, measures and tells the times.
func Rank(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	var task Task
	if err := readLine(lines, &task); err != nil {
		return fmt.Errorf("the task: %w", err)
	}
	typ, err := allreduce.ParseType(task.Type)
	if err != nil {
		return err
	}
	wire, err := allreduce.ParseWire(task.Wire)
	if err != nil {
		return err
	}
	path, err := grpclink.ParsePath(task.Path)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(task.Host, "0"))
	if err != nil {
		return err
	}
	if err := writeLine(out, listener.Addr().String()); err != nil {
		return errors.Join(err, listener.Close())
	}
	var peers []string
	if err := readLine(lines, &peers); err != nil {
		return errors.Join(fmt.Errorf("the addresses: %w", err), listener.Close())
	}
	group, err := grpclink.Join(ctx, grpclink.Config{
		Job: 1, Epoch: 1, DetectTimeout: patience, Rank: task.Rank, Peers: peers, Secret: task.Secret, Listener: listener, Path: path, Machine: task.Machine,
	})
	if err != nil {
		return err
	}
	defer group.Close() //nolint:errcheck // returns nil
	times, err := measure(ctx, group, &task, typ, wire)
	if err != nil {
		return err
	}
	return writeLine(out, times)
}

// patience is how long a rank may be silent: ranks that fill a gigabyte each on a machine with other work are, for seconds.
const patience = 30 * time.Second

// fewBytes is up to where a call takes hardly longer than to ask for the processor time, which other ranks on the same core would wait for: then
// one call in 16 is asked about, and stands for all.
const fewBytes = 64 << 10

// measure makes the calls and checks each result.
func measure(ctx context.Context, g *allreduce.Group, task *Task, typ allreduce.Type, wire allreduce.Wire) (*Times, error) {
	memory := make([]byte, task.Bytes)
	if task.Alloc {
		var err error
		if memory, err = g.Alloc(task.Bytes); err != nil {
			return nil, err
		}
		defer g.Free(memory)
	}
	p := newPattern(typ, memory, g.Rank(), g.WorldSize())
	p.over(wire, g.WorldSize())
	t, every, start := &Times{}, 1, time.Now() // a time since another reads one clock, Now two
	if task.Bytes <= fewBytes {
		every = 16
	}
	for call := range task.Warmup + task.Calls {
		p.fill()
		if err := g.Barrier(ctx); err != nil {
			return nil, err
		}
		asks := call >= task.Warmup && (call-task.Warmup)%every == 0
		var cpu time.Duration
		if asks {
			cpu = processorTime()
		}
		from := time.Since(start)
		if err := g.AllReduce(ctx, p.vector, allreduce.Sum); err != nil {
			return nil, err
		}
		took := (time.Since(start) - from).Seconds()
		if asks {
			t.CPU += (processorTime() - cpu).Seconds() * float64(min(every, task.Warmup+task.Calls-call))
		}
		if at := p.wrong(); at >= 0 {
			return nil, fmt.Errorf("call %d: element %d of rank %d is not the sum", call, at, g.Rank())
		}
		if call >= task.Warmup {
			t.Seconds = append(t.Seconds, took)
			t.Checked++
		}
	}
	return t, nil
}

// processorTime returns what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func readLine(r *bufio.Reader, to any) error {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, to)
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
