//go:build unix

package grpclink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
	"github.com/gangline/gangline/allreduce/internal/point"
)

// rankVariable makes a process of the test's program a rank.
const rankVariable = "GANGLINE_TEST_IS_RANK"

// order tells a rank's process which ring to join, and where in its work to send itself a signal.
type order struct {
	Formation, Place int
	Peers            []string
	Path             grpclink.Path
	Machine          string
	At               int64 // the point, from 1; 0: none
	Signal           syscall.Signal
}

// word is what a rank's process says: where it listens, or how it went.
type word struct {
	Address string
	Err     string // "": all was done, with the right results
	Lost    int    // whom it lost; -1: nobody
	Points  int64  // that it passed
}

// processDetect is long beside the pauses of a loaded machine.
const processDetect = 3 * time.Second

// beRank is the life of a rank's process: a ring, and another, until nobody gives orders any more.
func beRank() error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		if err := out.Encode(word{Address: l.Addr().String()}); err != nil {
			return err
		}
		var o order
		if in.Decode(&o) != nil {
			return nil
		}
		var points atomic.Int64
		cfg := config(o.Place, o.Peers, l)
		cfg.Formation, cfg.Path, cfg.Machine, cfg.DetectTimeout, cfg.JoinTimeout = uint32(o.Formation), o.Path, o.Machine, processDetect, 2*processDetect //nolint:gosec // small
		cfg.Probe = func(point.Point) {
			if points.Add(1) == o.At {
				_ = syscall.Kill(os.Getpid(), o.Signal)
			}
		}
		w := word{Lost: -1}
		if err := liveIn(cfg); err != nil {
			w.Err = err.Error()
			if lost := (*allreduce.RankLostError)(nil); errors.As(err, &lost) {
				w.Lost = lost.Rank
			}
		}
		w.Points = points.Load()
		if err := out.Encode(w); err != nil {
			return err
		}
	}
}

// liveIn joins a ring, does all that ranks do together, and leaves.
func liveIn(cfg grpclink.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a call that never returns names its own rank then
	defer cancel()
	g, err := grpclink.Join(ctx, cfg)
	if err != nil {
		return err
	}
	defer g.Close() //nolint:errcheck // returns nil
	rank, n := g.Rank(), g.WorldSize()
	for _, length := range []int{10, 1000, 300_000} {
		if err := sumOnce(ctx, g, rank, n, length); err != nil {
			return err
		}
	}
	if err := sumShown(ctx, g, 100_000); err != nil {
		return err
	}
	passed := make([]int32, 70_000)
	lo, hi := allreduce.Share(len(passed), n, rank)
	for i := lo; i < hi; i++ {
		passed[i] = int32(i) //nolint:gosec // small
	}
	if err := g.AllGather(ctx, allreduce.Of(passed)); err != nil {
		return err
	}
	if err := g.Send(ctx, allreduce.Of(passed[:100]), (rank+1)%n); err != nil {
		return err
	}
	if err := g.Recv(ctx, allreduce.Of(passed[:100]), (rank+n-1)%n); err != nil {
		return err
	}
	if err := g.Broadcast(ctx, allreduce.Of(passed), n-1); err != nil {
		return err
	}
	for i, x := range passed {
		if int(x) != i {
			return fmt.Errorf("rank %d: element %d is %d", rank, i, x)
		}
	}
	return g.Barrier(ctx)
}

// sumShown sums a vector that all ranks see, where they share memory.
func sumShown(ctx context.Context, g *allreduce.Group, length int) error {
	memory, err := g.Alloc(4 * length)
	if err != nil {
		return err
	}
	defer g.Free(memory)
	v := allreduce.Bits(allreduce.Int32, memory)
	for i := range length {
		memory[4*i] = byte(1 + i%3)
	}
	if err := g.AllReduce(ctx, v, allreduce.Sum); err != nil {
		return err
	}
	for i := range length {
		if want := byte(g.WorldSize() * (1 + i%3)); memory[4*i] != want { //nolint:gosec // a few ranks
			return fmt.Errorf("rank %d: element %d is %d, want %d", g.Rank(), i, memory[4*i], want)
		}
	}
	return nil
}

// mapped is memory that free takes away at once.
func mapped(length int) (data []float32, free func()) {
	memory, err := syscall.Mmap(-1, 0, max(1, 4*length), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		panic(err)
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(memory))), length), func() {
		if err := syscall.Munmap(memory); err != nil {
			panic(err)
		}
	}
}

// process is a rank's process, as the test has it.
type process struct {
	cmd   *exec.Cmd
	say   *json.Encoder
	words chan word // closed when the process has ended
}

func startRank(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0]) //nolint:gosec // this program
	cmd.Env, cmd.Stderr = append(os.Environ(), rankVariable+"=1"), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, say: json.NewEncoder(in), words: make(chan word, 4)}
	go func() { // ends with the process
		defer close(p.words)
		for heard := json.NewDecoder(out); ; {
			var w word
			if heard.Decode(&w) != nil {
				return
			}
			p.words <- w
		}
	}()
	return p
}

// end kills the process, whatever it does, and waits for it.
func (p *process) end() {
	_ = p.cmd.Process.Kill() // it may have ended
	for range p.words {      // until its output has ended
	}
	_ = p.cmd.Wait() // it was killed
}

// gang is ranks of processes.
type gang struct {
	ranks     []*process
	path      grpclink.Path
	formation int
}

// round lets all ranks join a ring and do their work; victim is sent a signal at a point of it. It returns what each but the victim said.
func (g *gang) round(t *testing.T, victim int, at int64, signal syscall.Signal) []word {
	t.Helper()
	g.formation++
	n := len(g.ranks)
	peers := make([]string, n)
	for r, p := range g.ranks {
		peers[r] = p.hear(t, r).Address
	}
	for r, p := range g.ranks {
		o := order{Formation: g.formation, Place: r, Peers: peers, Path: g.path}
		if g.path == grpclink.PathNodes {
			o.Machine = fmt.Sprint("machine ", r/2)
		}
		if r == victim {
			o.At, o.Signal = at, signal
		}
		if err := p.say.Encode(o); err != nil {
			t.Fatalf("rank %d: %v", r, err)
		}
	}
	words := make([]word, n)
	for r, p := range g.ranks {
		if r != victim {
			words[r] = p.hear(t, r)
		}
	}
	return words
}

// hear waits for a rank's word.
func (p *process) hear(t *testing.T, rank int) word {
	t.Helper()
	select {
	case w, ok := <-p.words:
		if !ok {
			t.Fatalf("the process of rank %d has ended", rank)
		}
		return w
	case <-time.After(2 * time.Minute): // far above what anything takes: it hangs
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // and says where
		for range p.words {                       // until it has
		}
		t.Fatalf("rank %d has not come back", rank)
		return word{}
	}
}
