package ckptbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// Config says what to measure.
type Config struct {
	Bytes  int64  // of the state, all ranks together
	Ranks  int    // processes
	Dir    string // on the storage to measure; a directory is made in it, and removed
	Rounds int    // how often everything is measured; medians count
	Small  int    // number of tensors of the save of small tensors; 0: leave it out
	Torch  bool   // measure PyTorch beside it
	Python string // program with PyTorch; "": look for one
	Self   []string
	Log    func(format string, args ...any)
}

// Peer is what another program makes of the same bytes. Rates are in GB (1e9 bytes) a second.
type Peer struct {
	SaveGBs    float64 `json:"save_gbs"`
	LoadGBs    float64 `json:"load_gbs"` // cold
	LoadHotGBs float64 `json:"load_hot_gbs"`
	Ratio      float64 `json:"ratio"` // our save rate to its
	StallRatio float64 `json:"stall_ratio"`
}

// Small is the save of many small tensors against that of one of the same size.
type Small struct {
	Tensors int     `json:"tensors"`
	Ratio   float64 `json:"ratio"` // time to time
}

// Report is the outcome. Rates are medians, in GB (1e9 bytes) a second.
type Report struct {
	Bytes        int64             `json:"bytes"`
	Ranks        int               `json:"ranks"`
	Rounds       int               `json:"rounds"`
	SaveGBs      float64           `json:"save_gbs"`       // durable and committed
	DiskWriteGBs float64           `json:"disk_write_gbs"` // O_DIRECT and fsync, as many files at once as ranks
	LoadColdGBs  float64           `json:"load_cold_gbs"`  // verified
	LoadHotGBs   float64           `json:"load_hot_gbs"`   // verified, from the page cache
	DiskReadGBs  float64           `json:"disk_read_gbs"`  // O_DIRECT
	StallS       float64           `json:"stall_s"`        // of the slowest rank, in an asynchronous save
	MemcpyS      float64           `json:"memcpy_s"`       // of the same bytes, likewise
	Verified     bool              `json:"verified"`       // all that was loaded is what was saved
	Small        *Small            `json:"small,omitempty"`
	Peers        map[string]*Peer  `json:"peers"`
	Skipped      map[string]string `json:"skipped,omitempty"` // peers that were not measured, and why
}

// peer is one way of PyTorch to save the same bytes.
type peer struct {
	name  string
	dcp   bool // its distributed checkpoint, instead of torch.save
	ranks bool // by as many processes as ranks, each with a part and files of its own
}

// peers are all that are measured, in the order in which they are printed.
//
//nolint:gochecknoglobals // table, never written
var peers = []peer{
	{name: "torch_save_fsync"},
	{name: "torch_save_fsync_ranks", ranks: true},
	{name: "torch_dcp", dcp: true},
	{name: "torch_dcp_ranks", dcp: true, ranks: true},
}

// PeerNames gives the keys that Report.Peers may have, in the order to print them.
func PeerNames() []string {
	names := make([]string, 0, len(peers))
	for _, p := range peers {
		names = append(names, p.name)
	}
	return names
}

// bench is one run.
type bench struct {
	cfg     Config
	dir     string
	store   *checkpoint.Store
	ranks   *ranks
	torch   *torch // nil: not measured
	step    uint64
	samples map[string][]float64 // seconds, by what was measured
	ok      bool
}

// What is measured.
const (
	sDiskWrite = "disk write"
	sDiskRead  = "disk read"
	sSave      = "save"
	sSmall     = "save small"
	sCold      = "load cold"
	sHot       = "load hot"
	sStall     = "stall"
	sMemcpy    = "memcpy"
)

// Run measures. It leaves nothing behind.
func Run(ctx context.Context, cfg Config) (report Report, err error) {
	if cfg.Bytes < 1<<20 || cfg.Ranks < 1 || cfg.Ranks > 64 || cfg.Rounds < 1 {
		return report, fmt.Errorf("bench checkpoint: %d bytes, %d ranks, %d rounds: want at least 1 MiB, 1 to 64 ranks, 1 round", cfg.Bytes, cfg.Ranks, cfg.Rounds)
	}
	b := &bench{cfg: cfg, samples: map[string][]float64{}, ok: true}
	if b.dir, err = os.MkdirTemp(cfg.Dir, "gangline-bench-"); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.checkRoom(); err != nil {
		return report, err
	}
	if err := b.open(ctx); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, b.ranks.close(), b.torch.close()) }()
	report = Report{Bytes: cfg.Bytes, Ranks: cfg.Ranks, Rounds: cfg.Rounds, Peers: map[string]*Peer{}, Skipped: map[string]string{}}
	if cfg.Torch {
		if b.torch, err = startTorch(ctx, cfg, b.dir); err != nil {
			report.Skipped["torch"] = err.Error()
			cfg.Log("PyTorch is not measured: %v", err)
		} else if err := b.torch.noDCP; err != nil {
			report.Skipped["torch_dcp"] = err.Error()
			cfg.Log("torch_dcp is not measured: %v", err)
		}
	}
	for round := range cfg.Rounds {
		if err := b.round(ctx, round); err != nil {
			return report, fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	b.fill(&report)
	return report, nil
}

func (b *bench) open(ctx context.Context) error {
	fsys, err := checkpoint.NewDir(b.dir)
	if err != nil {
		return err
	}
	if b.store, err = checkpoint.Open(checkpoint.Config{FS: fsys, Job: jobName}); err != nil {
		return err
	}
	if err := b.store.Fence(ctx, 1); err != nil {
		return err
	}
	b.ranks, err = startRanks(ctx, b.cfg, b.dir)
	return err
}

// round measures everything once, writes first: each beside its peers.
func (b *bench) round(ctx context.Context, round int) error {
	steps := []step{
		{sDiskWrite, b.diskWrite},
		{sSave, func(ctx context.Context) (float64, error) { return b.save(ctx, opSave) }},
	}
	steps = append(steps, b.peerSteps("save", "save")...)
	steps = append(
		steps,
		step{sDiskRead, b.diskRead},
		step{sCold, func(ctx context.Context) (float64, error) { return b.load(ctx, true) }},
	)
	steps = append(steps, b.peerSteps("load", "cold")...)
	steps = append(steps, step{sHot, func(ctx context.Context) (float64, error) { return b.load(ctx, false) }})
	steps = append(steps, b.peerSteps("hot", "hot")...)
	steps = append(
		steps,
		step{sMemcpy, func(ctx context.Context) (float64, error) { return b.ranks.all(ctx, order{Op: opMemcpy}) }},
		step{sStall, b.async},
		step{sSmall, func(ctx context.Context) (float64, error) {
			if b.cfg.Small == 0 {
				return 0, errSkip
			}
			return b.save(ctx, opSmall)
		}},
	)
	for _, s := range steps {
		seconds, err := s.do(ctx)
		if errors.Is(err, errSkip) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		b.cfg.Log("round %d of %d: %-30s %7.3f s, %6.2f GB/s", round+1, b.cfg.Rounds, s.what, seconds, float64(b.cfg.Bytes)/1e9/seconds)
		b.samples[s.what] = append(b.samples[s.what], seconds)
	}
	return nil
}

// step is one measurement.
type step struct {
	what string
	do   func(context.Context) (float64, error)
}

// peerSteps has all peers do the same, one after the other.
func (b *bench) peerSteps(what, op string) []step {
	var out []step
	for i := range peers {
		out = append(out, step{peers[i].name + " " + what, b.torch.timed(&peers[i], op)})
	}
	return out
}

// errSkip says that something is not measured.
var errSkip = errors.New("not measured")

// save has all ranks write, then commits: the time of both.
func (b *bench) save(ctx context.Context, op string) (float64, error) {
	b.step++
	start := time.Now()
	if _, err := b.ranks.all(ctx, order{Op: op, Step: b.step}); err != nil {
		return 0, err
	}
	_, err := b.store.Commit(ctx, checkpoint.CommitRequest{Epoch: 1, Step: b.step, WorldSize: b.cfg.Ranks})
	seconds := time.Since(start).Seconds()
	return seconds, errors.Join(err, b.clean(ctx))
}

// async has all ranks save in the background, and gives the longest stall. The first one takes memory, and counts only for that.
func (b *bench) async(ctx context.Context) (float64, error) {
	tries := 1
	if len(b.samples[sStall]) == 0 {
		tries = 2
	}
	stall := 0.0
	for range tries {
		b.step++
		var err error
		if stall, err = b.ranks.all(ctx, order{Op: opAsync, Step: b.step}); err != nil {
			return 0, err
		}
		if _, err := b.store.Load(ctx, checkpoint.Ref{Epoch: 1, Step: b.step}); err != nil {
			return 0, fmt.Errorf("the asynchronous save is not there: %w", err)
		}
		if err := b.clean(ctx); err != nil {
			return 0, err
		}
	}
	return stall, nil
}

// clean keeps the newest checkpoint alone.
func (b *bench) clean(ctx context.Context) error {
	refs, err := b.store.List(ctx)
	if err != nil {
		return err
	}
	for _, r := range refs[1:] {
		if err := b.store.Remove(ctx, checkpoint.RemoveRequest{Ref: r}); err != nil {
			return err
		}
	}
	return nil
}

// load has all ranks read their part of the newest checkpoint: with nothing of it in the page cache, or with all of it.
func (b *bench) load(ctx context.Context, cold bool) (float64, error) {
	refs, err := b.store.List(ctx)
	if err != nil {
		return 0, err
	}
	dir := filepath.Join(b.dir, refs[0].String())
	if cold {
		err = dropCaches(dir)
	} else {
		err = warmCaches(dir)
	}
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := b.ranks.all(ctx, order{Op: opLoad, Step: refs[0].Step}); err != nil {
		return 0, err
	}
	seconds := time.Since(start).Seconds()
	if _, err := b.ranks.all(ctx, order{Op: opCompare}); err != nil {
		b.ok = false
		return 0, err
	}
	return seconds, nil
}

// fill takes the medians.
func (b *bench) fill(r *Report) {
	rate := func(what string) float64 {
		if s := median(b.samples[what]); s > 0 {
			return float64(b.cfg.Bytes) / 1e9 / s
		}
		return 0
	}
	r.SaveGBs, r.DiskWriteGBs, r.DiskReadGBs = rate(sSave), rate(sDiskWrite), rate(sDiskRead)
	r.LoadColdGBs, r.LoadHotGBs = rate(sCold), rate(sHot)
	r.StallS, r.MemcpyS, r.Verified = median(b.samples[sStall]), median(b.samples[sMemcpy]), b.ok
	if b.cfg.Small > 0 {
		r.Small = &Small{Tensors: b.cfg.Small, Ratio: median(b.samples[sSmall]) / median(b.samples[sSave])}
	}
	for _, name := range PeerNames() {
		if len(b.samples[name+" save"]) == 0 {
			continue
		}
		p := &Peer{SaveGBs: rate(name + " save"), LoadGBs: rate(name + " load"), LoadHotGBs: rate(name + " hot")}
		p.Ratio = r.SaveGBs / p.SaveGBs
		p.StallRatio = median(b.samples[name+" save"]) / r.StallS
		r.Peers[name] = p
	}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
