package benchring

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// Config says what to measure.
type Config struct {
	Ranks    int      // processes, 1..64
	Bytes    int      // of the vector, a multiple of the element's size
	Type     string   // of an element; peers are measured with float32
	Path     string   // auto, shm, nodes, unix, tcp or grpc
	Wire     string   // form in which our elements travel: exact, bf16 or int8
	Machines int      // that ours take their ranks to be on, in equal parts; 1: this one
	Rate     string   // of each rank's link, such as 1gbit; empty: all ranks are on this machine's loopback
	Alloc    bool     // our vectors lie in memory of Group.Alloc
	Peers    []string // gloo, ompi
	Rounds   int      // how often each contender runs, in turn, in new processes; at least 1
	Calls    int      // that count in one round; 0: as many as take about a second
	// Command is the program and arguments that run Rank.
	Command []string
	Log     io.Writer // progress
}

// Report is what was measured. Seconds are of the slowest rank, medians over all calls of all rounds.
type Report struct {
	Ranks    int    `json:"ranks"`
	Bytes    int    `json:"bytes"`
	Path     string `json:"path"`
	Type     string `json:"dtype"`
	Wire     string `json:"wire"`
	Machines int    `json:"machines"`
	Rate     string `json:"rate,omitempty"`
	Alloc    bool   `json:"alloc"`
	Rounds   int    `json:"rounds"`
	Calls    int    `json:"calls"`
	// Median is of our calls, BusBandwidth what each link carries: 2(n-1)/n times the vector's bytes in that time, in 10^9 bytes/s.
	Median       float64 `json:"median_s"`
	BusBandwidth float64 `json:"busbw_gbs"`
	// CPU is the processor time of all ranks together for 10^9 bytes of vector.
	CPU float64 `json:"cpu_s_per_gb"`
	// Checked says that each result of each call was compared and right.
	Checked bool            `json:"checked"`
	Peers   map[string]Peer `json:"peers"`
	// Missing says which peers were asked for and could not run, and why.
	Missing []string `json:"missing,omitempty"`
}

// Peer is another's time and how many times ours it is.
type Peer struct {
	Median float64 `json:"median_s"`
	Ratio  float64 `json:"ratio"`
}

// Validate returns every problem of the config at once, joined, or nil.
func (c *Config) Validate() error {
	var errs []error
	if c.Ranks < 1 || c.Ranks > 64 {
		errs = append(errs, fmt.Errorf("--ranks %d: must be 1..64", c.Ranks))
	}
	typ, err := allreduce.ParseType(c.Type)
	errs = append(errs, err)
	if err == nil && (c.Bytes < typ.Size() || c.Bytes%typ.Size() != 0 || c.Bytes > 1<<31) {
		errs = append(errs, fmt.Errorf("--bytes %d: must be a multiple of %d up to 2 GiB", c.Bytes, typ.Size()))
	}
	if _, err := grpclink.ParsePath(c.Path); err != nil {
		errs = append(errs, fmt.Errorf("--path: %w", err))
	}
	wire, err := allreduce.ParseWire(c.Wire)
	errs = append(errs, err)
	if err == nil && wire != allreduce.WireExact && c.Type != "float32" {
		errs = append(errs, fmt.Errorf("--wire %s: only float32 travels in another form, not %s", c.Wire, c.Type))
	}
	if c.Rate != "" && (!rates.MatchString(c.Rate) || (c.Path != "tcp" && c.Path != "grpc")) {
		errs = append(errs, fmt.Errorf("--rate %q with --path %s: must be such as 1gbit or 500mbit, and the path tcp or grpc", c.Rate, c.Path))
	}
	if c.Machines < 0 || c.Machines > max(c.Ranks, 1) || (c.Machines > 1 && c.Rate != "") {
		errs = append(errs, fmt.Errorf("--machines %d: must be 1..%d, and 1 with --rate", c.Machines, max(c.Ranks, 1)))
	}
	if c.Rounds < 1 || c.Calls < 0 {
		errs = append(errs, errors.New("--rounds must be 1 or more, --calls 0 or more"))
	}
	for _, p := range c.Peers {
		if p != "gloo" && p != "ompi" {
			errs = append(errs, fmt.Errorf("--peer %q: allowed are gloo, ompi", p))
		}
	}
	return errors.Join(errs...)
}

// runner is one measurement.
type runner struct {
	cfg Config
	dir string     // for what peers need
	net *shapedNet // nil: loopback
}

// entry is one contender and what it has measured.
type entry struct {
	name    string
	run     contender
	seconds []float64
	cpu     float64
}

// Run measures. It returns an error if one of ours failed or a result was wrong; a peer that is not installed is told in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gangline-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what is left is small, and in the system's folder for such things
	r := &runner{cfg: cfg, dir: dir}
	if cfg.Rate != "" {
		if r.net, err = newShapedNet(ctx, cfg.Ranks, cfg.Rate); err != nil {
			return nil, fmt.Errorf("--rate: %w", err)
		}
		defer r.net.remove()
	}
	report := &Report{
		Ranks: cfg.Ranks, Bytes: cfg.Bytes, Path: cmp.Or(cfg.Path, "auto"), Type: cfg.Type, Wire: cfg.Wire, Machines: max(cfg.Machines, 1), Rate: cfg.Rate,
		Alloc: cfg.Alloc, Rounds: cfg.Rounds, Peers: map[string]Peer{},
	}
	entries, err := r.entries(ctx, report)
	if err != nil {
		return nil, err
	}
	warmup, calls := callsFor(&cfg)
	report.Calls = calls
	for round := range cfg.Rounds {
		for _, e := range entries {
			fmt.Fprintf(cfg.Log, "round %d of %d: %s\n", round+1, cfg.Rounds, e.name)
			if err := e.round(ctx, warmup, calls); err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}
	report.fill(entries)
	return report, nil
}

// entries returns us and the peers that are installed.
func (r *runner) entries(ctx context.Context, report *Report) ([]*entry, error) {
	list := []*entry{{name: "gangline", run: r.ours(r.cfg.Wire)}}
	if r.cfg.Wire != allreduce.WireExact.String() {
		list = append(list, &entry{name: "gangline-exact", run: r.ours(allreduce.WireExact.String())})
	}
	makers := map[string][]struct {
		name string
		make func(context.Context) (contender, error)
	}{
		"gloo": {{"gloo", r.gloo}},
		"ompi": {
			{"ompi-tcp", r.ompi("--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo")},
			{"ompi-shm", r.ompi("--mca", "btl", "vader,self")},
		},
	}
	for _, peer := range r.cfg.Peers {
		for _, m := range makers[peer] {
			if r.net != nil && peer == "ompi" {
				report.Missing = append(report.Missing, m.name+": not measured with --rate: its launcher would have to reach into each rank's namespace")
				continue
			}
			run, err := m.make(ctx)
			if missing := (*missingError)(nil); errors.As(err, &missing) {
				report.Missing = append(report.Missing, m.name+": "+err.Error())
				continue
			}
			if err != nil {
				return nil, err
			}
			list = append(list, &entry{name: m.name, run: run})
		}
	}
	return list, nil
}

// callsFor chooses calls that take about a second in all, and enough for a median.
func callsFor(cfg *Config) (warmup, calls int) {
	const budget, least, most = 512 << 20, 7, 2000
	calls = cfg.Calls
	if calls == 0 {
		calls = min(max(budget/(cfg.Bytes*cfg.Ranks), least), most)
	}
	return max(2, calls/5), calls
}

// round runs a contender once and keeps the slowest rank's time of each call.
func (e *entry) round(ctx context.Context, warmup, calls int) error {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	times, err := e.run(ctx, warmup, calls)
	if err != nil {
		return err
	}
	for call := range calls {
		slowest := 0.0
		for r := range times {
			if len(times[r].Seconds) != calls || times[r].Checked != calls {
				return fmt.Errorf("it made %d calls and checked %d, want %d", len(times[r].Seconds), times[r].Checked, calls)
			}
			slowest = max(slowest, times[r].Seconds[call])
		}
		e.seconds = append(e.seconds, slowest)
	}
	for r := range times {
		e.cpu += times[r].CPU
	}
	return nil
}

func (r *Report) fill(entries []*entry) {
	ours := entries[0]
	r.Median, r.Checked = median(ours.seconds), true
	moved := float64(r.Bytes) / 1e9
	if r.Median > 0 {
		r.BusBandwidth = 2 * float64(r.Ranks-1) / float64(r.Ranks) * moved / r.Median
	}
	r.CPU = ours.cpu / (moved * float64(len(ours.seconds)))
	for _, e := range entries[1:] {
		m := median(e.seconds)
		r.Peers[e.name] = Peer{Median: m, Ratio: m / r.Median}
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

// ours starts one process for each rank and lets them find each other.
func (r *runner) ours(wire string) contender {
	return func(ctx context.Context, warmup, calls int) ([]Times, error) {
		cfg := &r.cfg
		ranks := make([]*process, cfg.Ranks)
		defer func() {
			for _, p := range ranks {
				p.end()
			}
		}()
		peers, secret := make([]string, cfg.Ranks), []byte(rand.Text())
		for i := range ranks {
			p, err := startRank(ctx, r.net.within(i, cfg.Command...))
			if err != nil {
				return nil, err
			}
			ranks[i] = p
			task := Task{
				Rank: i, Ranks: cfg.Ranks, Bytes: cfg.Bytes, Type: cfg.Type, Path: cfg.Path, Secret: secret, Host: r.net.address(i), Wire: wire,
				Alloc: cfg.Alloc, Warmup: warmup, Calls: calls,
			}
			if cfg.Machines > 1 {
				task.Machine = fmt.Sprint("machine ", i*cfg.Machines/cfg.Ranks)
			}
			if err := p.exchange(task, &peers[i]); err != nil {
				return nil, fmt.Errorf("rank %d: %w", i, err)
			}
		}
		return all(cfg.Ranks, func(rank int) (t Times, err error) {
			if err := ranks[rank].exchange(peers, &t); err != nil {
				return t, fmt.Errorf("rank %d: %w", rank, err)
			}
			return t, nil
		})
	}
}

// process is one of our ranks.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	errs bytes.Buffer
}

func startRank(ctx context.Context, command []string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, command[0], command[1:]...)} //nolint:gosec // this program itself
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out, p.cmd.Stderr = in, bufio.NewReader(out), &p.errs
	return p, p.cmd.Start()
}

// exchange tells the rank something and reads its answer.
func (p *process) exchange(tell, answer any) error {
	err := writeLine(p.in, tell)
	if err == nil {
		err = readLine(p.out, answer)
	}
	if err == nil {
		return nil
	}
	_ = p.in.Close() // it is about to end
	_ = p.cmd.Wait() // its text says why
	return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(tail(p.errs.Bytes()))))
}

// end waits for the process, which ends by itself once its input does.
func (p *process) end() {
	if p == nil || p.cmd.ProcessState != nil {
		return
	}
	_ = p.in.Close() // all has been said
	_ = p.cmd.Wait() // what it had to say was read before
}
