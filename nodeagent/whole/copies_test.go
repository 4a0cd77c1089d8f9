package whole

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/gangline/gangline/checkpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gang is a job of two ranks with a checkpoint on the shared storage, and one node, where rank 0 has run.
type gang struct {
	t      *testing.T
	far    *checkpoint.Store
	shared string
	own    string // rank 0's shard
	req    Request

	farReads, asked atomic.Int64
	spoilFar        atomic.Bool
}

const chunk = checkpoint.Align

func newGang(t *testing.T) *gang {
	t.Helper()
	root := t.TempDir()
	g := &gang{t: t, shared: filepath.Join(root, "shared")}
	dir, err := checkpoint.NewDir(g.shared)
	if err != nil {
		t.Fatal(err)
	}
	if g.far, err = checkpoint.Open(checkpoint.Config{FS: dir, Job: "job-1", ChunkBytes: chunk}); err != nil {
		t.Fatal(err)
	}
	g.save(1)
	g.req = Request{
		Dir: filepath.Join(root, "whole"), Epoch: 2,
		Link: func(name string) (string, bool) { return g.own, strings.HasPrefix(name, "shard-0000") },
		Room: func(int64) error { return nil },
		Far: func(ctx context.Context, name string, at int64, dst []byte) error {
			g.farReads.Add(1)
			if g.spoilFar.Load() {
				return &checkpoint.CorruptError{Path: name}
			}
			return g.readShared(ctx, name, at, dst)
		},
	}
	g.of(1)
	return g
}

func (g *gang) readShared(ctx context.Context, name string, at int64, dst []byte) error {
	f, err := g.far.OpenFile(g.req.Manifest, name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	_, err = f.ReadChunks(ctx, int(at/f.ChunkBytes()), dst)
	return err
}

// save saves a step in epoch 1.
func (g *gang) save(step uint64) {
	g.t.Helper()
	if err := g.far.Fence(g.t.Context(), 1); err != nil {
		g.t.Fatal(err)
	}
	for rank := range 2 {
		_, err := g.far.WriteShard(g.t.Context(), checkpoint.ShardWrite{
			Epoch: 1, Step: step, Rank: rank, WorldSize: 2,
			Tensors: []checkpoint.Tensor{checkpoint.Whole(fmt.Sprintf("w%d", rank), slices.Repeat([]float32{float32(step)}, 10*chunk), 10*chunk)},
		})
		if err != nil {
			g.t.Fatal(err)
		}
	}
	if _, err := g.far.Commit(g.t.Context(), checkpoint.CommitRequest{Epoch: 1, Step: step, WorldSize: 2}); err != nil {
		g.t.Fatal(err)
	}
}

// of has the request ask for a step, of which rank 0's shard lies on the node's disk.
func (g *gang) of(step uint64) {
	g.t.Helper()
	ref := checkpoint.Ref{Epoch: 1, Step: step}
	m, err := g.far.Load(g.t.Context(), ref)
	if err == nil {
		g.req.Manifest = m
		g.req.Bytes, err = g.far.ManifestFile(&m)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(filepath.Join(g.shared, ref.String(), "shard-0000-of-0002.glck"))
	}
	g.own = filepath.Join(g.t.TempDir(), "shard")
	if err == nil {
		err = os.WriteFile(g.own, data, 0o600)
	}
	// A link wants the same file system.
	if err == nil {
		to := filepath.Join(filepath.Dir(g.shared), fmt.Sprintf("own-%d", step))
		err = os.Rename(g.own, to)
		g.own = to
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *gang) make(c *Copies) Made {
	g.t.Helper()
	made, err := c.Make(g.t.Context(), g.req)
	if err != nil {
		g.t.Fatal(err)
	}
	g.want(made.Path)
	return made
}

// want checks that a copy is whole by itself.
func (g *gang) want(path string) {
	g.t.Helper()
	store, err := openAt(filepath.Dir(path), "job-1")
	var m checkpoint.Manifest
	if err == nil {
		m, err = store.Load(g.t.Context(), g.req.Manifest.Ref())
	}
	if err == nil {
		err = store.Verify(g.t.Context(), m)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// spoil changes a byte of a file, and nothing by which that could be seen.
func spoil(t *testing.T, path string, at int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := []byte{0}
	_, err = f.ReadAt(b, at)
	b[0]++
	_, werr := f.WriteAt(b, at)
	if err := errors.Join(err, werr, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// TestOneCopyForAllRanks: what lies here is linked, the rest read once, also for ranks of the same epoch that start later; the next epoch verifies it anew, and mends
// what is damaged.
func TestOneCopyForAllRanks(t *testing.T) {
	t.Parallel()
	g, c := newGang(t), New()
	made := g.make(c)
	size := g.req.Manifest.Shards[0].Bytes
	if made.Linked != size || made.FromFar != size || made.FromPeers != 0 {
		t.Errorf("made of %+v, want one shard of %d bytes each", made, size)
	}
	mine, err := os.Stat(g.own)
	copied, cerr := os.Stat(filepath.Join(made.Path, "shard-0000-of-0002.glck"))
	if err != nil || cerr != nil || !os.SameFile(mine, copied) {
		t.Errorf("the shard that lies here has a second copy: %v, %v", err, cerr)
	}
	other := filepath.Join(made.Path, "shard-0001-of-0002.glck")
	spoil(t, other, 3*chunk)
	reads := g.farReads.Load()
	if again, err := c.Make(t.Context(), g.req); err != nil || g.farReads.Load() != reads || len(again.Bad) > 0 {
		t.Errorf("the same epoch's next rank had it read again: %+v, %v", again, err)
	}
	g.req.Epoch++
	made = g.make(c)
	if len(made.Bad) == 0 || g.farReads.Load() == reads {
		t.Errorf("the next epoch did not mend it: %+v", made)
	}
	g.save(2)
	g.of(2)
	g.make(c)
	if left := steps(t, g.req.Dir); !slices.Equal(left, []string{checkpoint.Ref{Epoch: 1, Step: 2}.String()}) {
		t.Errorf("copies of %v stay", left)
	}
}

func steps(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}

// TestTwoAgentsMakeOneCopy: one that is being replaced and its successor.
func TestTwoAgentsMakeOneCopy(t *testing.T) {
	t.Parallel()
	g := newGang(t)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := New().Make(t.Context(), g.req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	size := g.req.Manifest.Shards[1].Bytes
	if got, want := g.farReads.Load(), (size+chunk-1)/chunk; got != want {
		t.Errorf("%d chunks were read, want %d", got, want)
	}
	g.want(filepath.Join(g.req.Dir, g.req.Manifest.Ref().String()))
	if Busy(g.req.Dir) {
		t.Error("it is still busy")
	}
}

// TestPeers: a node that has it is asked; one that has not, that gives other bytes, or that dies in the middle costs nothing but the time; and what is damaged on the
// shared storage comes from a node that has it good.
func TestPeers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ask      func(g *gang, n int64, dst []byte) error
		spoilFar bool
		fromFar  bool
		bad      bool
	}{
		"has it":         {ask: func(*gang, int64, []byte) error { return nil }, spoilFar: true},
		"has it not":     {ask: func(*gang, int64, []byte) error { return ErrMissing }, fromFar: true},
		"dies":           {ask: func(_ *gang, n int64, _ []byte) error { return after(n, 4, errors.New("gone")) }, fromFar: true, bad: true},
		"has other ones": {ask: func(_ *gang, _ int64, dst []byte) error { dst[7]++; return nil }, fromFar: true, bad: true},
	} {
		g := newGang(t)
		g.spoilFar.Store(c.spoilFar)
		g.req.Peers = func() map[string]string { return map[string]string{"n2": "h2:1"} }
		g.req.Ask = func(ctx context.Context, _, file string, at int64, dst []byte) error {
			n := g.asked.Add(1)
			if err := g.readShared(ctx, file, at, dst); err != nil {
				return err
			}
			return c.ask(g, n, dst)
		}
		made := g.make(New())
		if (made.FromFar > 0) != c.fromFar || (len(made.Bad) > 0) != c.bad {
			t.Errorf("a node that %s: %+v", name, made)
		}
		if all := made.FromFar + made.FromPeers; all != g.req.Manifest.Shards[1].Bytes {
			t.Errorf("a node that %s: %d bytes were fetched, want the shard's %d", name, all, g.req.Manifest.Shards[1].Bytes)
		}
		if g.asked.Load() == 0 {
			t.Errorf("a node that %s was not asked", name)
		}
	}
}

func after(n, count int64, err error) error {
	if n > count {
		return err
	}
	return nil
}

// TestNoCopy: without room nothing is written; where no source is good there is none, and what is good stays for the next try.
func TestNoCopy(t *testing.T) {
	t.Parallel()
	g, c := newGang(t), New()
	full := errors.New("full")
	asked := int64(0)
	g.req.Room = func(bytes int64) error { asked = bytes; return full }
	if _, err := c.Make(t.Context(), g.req); !errors.Is(err, full) || asked != g.req.Manifest.Shards[1].Bytes {
		t.Errorf("without room for %d bytes: %v", asked, err)
	}
	if left := steps(t, g.req.Dir); len(left) > 0 {
		t.Errorf("%v stay", left)
	}
	g.req.Room = func(int64) error { return nil }
	far := g.req.Far
	g.req.Far = func(ctx context.Context, name string, at int64, dst []byte) error {
		if at >= 6*chunk {
			return &checkpoint.CorruptError{Path: name}
		}
		return far(ctx, name, at, dst)
	}
	var damage *checkpoint.CorruptError
	if _, err := c.Make(t.Context(), g.req); !errors.As(err, &damage) {
		t.Errorf("without a good source: %v", err)
	}
	if _, err := os.Stat(filepath.Join(g.req.Dir, g.req.Manifest.Ref().String(), manifestFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a copy stands: %v", err)
	}
	g.req.Far = far
	before := g.farReads.Load()
	g.make(c)
	if got, all := g.farReads.Load()-before, (g.req.Manifest.Shards[1].Bytes+chunk-1)/chunk; got >= all {
		t.Errorf("%d chunks of %d were read, though some were there", got, all)
	}
}
