package ckptbench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/async"
)

const jobName = "bench"

// What a rank is told to do.
const (
	opStart   = "start"
	opSave    = "save"
	opSmall   = "small"
	opLoad    = "load"
	opCompare = "compare"
	opMemcpy  = "memcpy"
	opAsync   = "async"
)

// order is one line to a rank; answer is one line back.
type order struct {
	Op    string `json:"op"`
	Step  uint64 `json:"step,omitempty"`
	Rank  int    `json:"rank,omitempty"`
	Ranks int    `json:"ranks,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
	Small int    `json:"small,omitempty"`
	Dir   string `json:"dir,omitempty"`
}

type answer struct {
	Seconds float64 `json:"seconds"` // as this rank measured it
	Error   string  `json:"error,omitempty"`
}

// ranks are the processes.
type ranks struct {
	procs []*proc
}

type proc struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startRanks(ctx context.Context, cfg Config, dir string) (*ranks, error) {
	r := &ranks{}
	for range cfg.Ranks {
		p, err := startProc(exec.CommandContext(ctx, cfg.Self[0], cfg.Self[1:]...))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start a rank: %w", err), r.close())
		}
		r.procs = append(r.procs, p)
	}
	for i, p := range r.procs {
		o := order{Op: opStart, Rank: i, Ranks: cfg.Ranks, Bytes: cfg.Bytes, Small: cfg.Small, Dir: dir}
		if _, err := p.ask(o); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	return r, nil
}

func startProc(cmd *exec.Cmd) (*proc, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	return &proc{cmd: cmd, in: in, out: json.NewDecoder(bufio.NewReader(out))}, cmd.Start()
}

// ask sends a line and waits for the answer.
func (p *proc) ask(o any) (float64, error) {
	line, err := json.Marshal(o)
	if err != nil {
		return 0, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return 0, err
	}
	var a answer
	if err := p.out.Decode(&a); err != nil {
		return 0, fmt.Errorf("a process ended, or says what is no answer: %w", err)
	}
	if a.Error != "" {
		return 0, errors.New(a.Error)
	}
	return a.Seconds, nil
}

func (p *proc) close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

// all has every rank do the same at once, and gives the longest time that one measured.
func (r *ranks) all(ctx context.Context, o order) (float64, error) {
	type result struct {
		seconds float64
		err     error
	}
	results := make(chan result, len(r.procs))
	for _, p := range r.procs {
		go func() {
			s, err := p.ask(o)
			results <- result{s, err}
		}()
	}
	longest := 0.0
	var errs []error
	for range r.procs {
		got := <-results
		longest = max(longest, got.seconds)
		errs = append(errs, got.err)
	}
	return longest, errors.Join(append(errs, ctx.Err())...)
}

func (r *ranks) close() error {
	if r == nil {
		return nil
	}
	var errs []error
	for _, p := range r.procs {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// rank is the state of one process.
type rank struct {
	order
	store, small *checkpoint.Store
	state, back  []float32 // what is saved, and what is loaded
	lo, hi       int64     // of the whole tensor, in elements
	copyTo       []byte
	saver        *async.Saver
	asyncResults chan async.Result
}

// RankMain is the process of a rank: orders come in lines on in, answers go to out. It ends when in does.
func RankMain(ctx context.Context, in io.Reader, out io.Writer) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	r := &rank{}
	for {
		var o order
		if err := dec.Decode(&o); errors.Is(err, io.EOF) {
			return r.end(ctx)
		} else if err != nil {
			return err
		}
		var a answer
		seconds, err := r.do(ctx, o)
		a.Seconds = seconds
		if err != nil {
			a.Error = fmt.Sprintf("rank %d: %v", r.Rank, err)
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

func (r *rank) end(ctx context.Context) error {
	if r.saver == nil {
		return nil
	}
	return r.saver.Close(ctx)
}

func (r *rank) do(ctx context.Context, o order) (float64, error) {
	start := time.Now()
	var err error
	switch o.Op {
	case opStart:
		err = r.start(o)
	case opSave, opSmall:
		r.train()
		store := r.store
		if o.Op == opSmall {
			store = r.small
		}
		w := checkpoint.ShardWrite{Epoch: 1, Step: o.Step, Rank: r.Rank, WorldSize: r.Ranks, Tensors: r.tensors(o.Op == opSmall)}
		start = time.Now()
		_, err = store.WriteShard(ctx, w)
	case opLoad:
		clear(r.back)
		start = time.Now()
		err = r.load(ctx, o.Step)
	case opCompare:
		if !slices.Equal(r.back, r.state) {
			err = errors.New("what was loaded is not what was saved")
		}
	case opMemcpy:
		err = r.memcpy(&start)
	case opAsync:
		r.train()
		return r.async(ctx, o.Step)
	default:
		err = fmt.Errorf("unknown order %q", o.Op)
	}
	return time.Since(start).Seconds(), err
}

func (r *rank) start(o order) error {
	r.order = o
	dir, err := checkpoint.NewDir(o.Dir)
	if err != nil {
		return err
	}
	if r.store, err = checkpoint.Open(checkpoint.Config{FS: dir, Job: jobName}); err != nil {
		return err
	}
	// A store remembers what it saved last; that of the small tensors is not to be disturbed by the large one.
	if r.small, err = checkpoint.Open(checkpoint.Config{FS: dir, Job: jobName}); err != nil {
		return err
	}
	r.lo, r.hi = checkpoint.ShareRange(o.Bytes/4, o.Rank, o.Ranks)
	r.state, r.back = make([]float32, r.hi-r.lo), make([]float32, r.hi-r.lo)
	x := uint32(o.Rank)*2654435761 + 1
	for i := range r.state { // neither zeros nor anything that a disk could shorten
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		r.state[i] = float32(int32(x)) / 3 //nolint:gosec // any value will do
	}
	return nil
}

// train changes each number a little, as training does: what stayed the same would not be saved again.
func (r *rank) train() {
	for i, v := range r.state {
		r.state[i] = math.Float32frombits(math.Float32bits(v) + 1)
	}
}

// tensors cuts the state into one tensor, or into many small ones.
func (r *rank) tensors(small bool) []checkpoint.Tensor {
	all := r.Bytes / 4
	if !small {
		return []checkpoint.Tensor{checkpoint.Part("w", r.state, []int64{all}, []int64{r.lo}, []int64{r.hi - r.lo})}
	}
	first, end := checkpoint.ShareRange(int64(r.Small), r.Rank, r.Ranks)
	count := int(end - first)
	out := make([]checkpoint.Tensor, 0, count)
	for i := range count {
		lo, hi := checkpoint.ShareRange(int64(len(r.state)), i, count)
		// Each rank has tensors of its own, as with sharded optimizers.
		out = append(out, checkpoint.Whole(fmt.Sprintf("rank%d/t%05d", r.Rank, i), r.state[lo:hi], hi-lo))
	}
	return out
}

func (r *rank) load(ctx context.Context, step uint64) error {
	m, err := r.store.Load(ctx, checkpoint.Ref{Epoch: 1, Step: step})
	if err != nil {
		return err
	}
	reader := r.store.NewReader(m)
	err = checkpoint.ReadBox(ctx, reader, "w", []int64{r.lo}, []int64{r.hi - r.lo}, r.back)
	return errors.Join(err, reader.Close())
}

// memcpy copies the state once, into memory of the kind that an asynchronous save uses.
func (r *rank) memcpy(start *time.Time) error {
	if r.copyTo == nil {
		var err error
		r.copyTo, err = unix.Mmap(-1, 0, len(r.state)*4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
		if err != nil {
			return err
		}
	}
	*start = time.Now()
	t := r.tensors(false)
	copy(r.copyTo, t[0].Data)
	return nil
}

// async saves in the background and waits for the end; it gives the stall.
func (r *rank) async(ctx context.Context, step uint64) (float64, error) {
	if r.saver == nil {
		r.asyncResults = make(chan async.Result, 1)
		var err error
		r.saver, err = async.New(async.Config{
			Store: r.store, Epoch: 1, Rank: r.Rank, WorldSize: r.Ranks, Done: func(res async.Result) { r.asyncResults <- res },
		})
		if err != nil {
			return 0, err
		}
	}
	stall, err := r.saver.Save(ctx, async.SaveRequest{Step: step, Tensors: r.tensors(false)})
	if err != nil {
		return 0, err
	}
	res := <-r.asyncResults
	return stall.Total().Seconds(), res.Err
}
