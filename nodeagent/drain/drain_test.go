package drain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gangline/gangline/checkpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is one node with a job of one rank; a shard takes 8 KiB.
type world struct {
	t     *testing.T
	d     *Drainer
	store *checkpoint.Store
	live  bool
}

const shardBytes = 2 * checkpoint.Align

func newWorld(t *testing.T, maxBytes int64) *world {
	t.Helper()
	w := &world{t: t, live: true}
	var err error
	w.d, err = New(Config{
		Root: t.TempDir(), Shared: t.TempDir(), MaxBytes: maxBytes, Node: "n1", Address: func() string { return "h1:1" },
		Live: func(uint64) bool { return w.live },
	})
	if err != nil {
		t.Fatal(err)
	}
	local, err := w.d.JobDir(1)
	if err != nil {
		t.Fatal(err)
	}
	shared, err := checkpoint.NewDir(filepath.Join(w.d.cfg.Shared, "job-1"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := checkpoint.NewDir(local)
	if err != nil {
		t.Fatal(err)
	}
	if w.store, err = checkpoint.Open(checkpoint.Config{FS: shared, Job: "job-1", Local: &checkpoint.Local{FS: own}}); err != nil {
		t.Fatal(err)
	}
	return w
}

// save has rank 0 save a step.
func (w *world) save(epoch, step uint64, worldSize int) {
	w.t.Helper()
	if err := w.store.Fence(w.t.Context(), epoch); err != nil {
		w.t.Fatal(err)
	}
	_, err := w.store.WriteShard(w.t.Context(), checkpoint.ShardWrite{
		Epoch: epoch, Step: step, WorldSize: worldSize, Tensors: []checkpoint.Tensor{checkpoint.Whole("w", []float32{float32(step)}, 1)},
	})
	if err == nil && worldSize == 1 {
		_, err = w.store.Commit(w.t.Context(), checkpoint.CommitRequest{Epoch: epoch, Step: step, WorldSize: 1})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// look is one look of both loops.
func (w *world) look() {
	w.d.Look(w.t.Context())
	w.d.Look(w.t.Context()) // what has just been settled is known to be safe
	w.d.tidy(w.d.list())
}

// here lists the steps on the node's own disk.
func (w *world) here() string {
	var out []string
	for _, p := range w.d.list() {
		out = append(out, fmt.Sprintf("%d.%d", p.ref.Epoch, p.ref.Step))
	}
	return strings.Join(out, " ")
}

func (w *world) room() int64 {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.d.cfg.Root, ownDir, "job-1", roomFile))
	var r Room
	if err = errors.Join(err, json.Unmarshal(data, &r)); err != nil {
		w.t.Fatal(err)
	}
	return r.Bytes
}

func (w *world) want(here string, room int64) {
	w.t.Helper()
	if got := w.here(); got != here {
		w.t.Errorf("on the node's own disk: %q, want %q", got, here)
	}
	if got := w.room(); got != room {
		w.t.Errorf("room is %d bytes, want %d", got, room)
	}
}

// TestTheOldestGoFirst: with room for three saves, the oldest that are safe make way for the next one.
func TestTheOldestGoFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3*shardBytes)
	w.save(1, 10, 1)
	w.save(1, 20, 1)
	w.want("1.10 1.20", 3*shardBytes) // as told at the launch
	w.look()
	w.want("1.10 1.20", shardBytes)
	if got, want := w.d.Usage(), (Usage{Safe: 2 * shardBytes, Drained: 2 * shardBytes}); got != want {
		t.Errorf("usage %+v, want %+v", got, want)
	}
	w.save(1, 30, 1)
	w.look()
	w.want("1.20 1.30", shardBytes)
	refs, err := w.store.List(t.Context())
	if err != nil || len(refs) != 3 {
		t.Errorf("on the shared storage: %v, %v", refs, err)
	}
	w.d.cfg.MaxBytes = shardBytes // the newest stays as long as the job runs here
	w.look()
	w.want("1.30", 0)
	w.live = false
	w.look()
	if got := w.here(); got != "1.30" {
		t.Errorf("of a job that has left: %q; there is room for it", got)
	}
	w.d.cfg.MaxBytes = 1
	w.look()
	if got := w.here(); got != "" {
		t.Errorf("of a job that has left, without room: %q", got)
	}
}

// TestWhatIsNotDrainedStays: without the shared storage, and without other ranks' shards, whatever the bound.
func TestWhatIsNotDrainedStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.save(1, 10, 1)
	job := filepath.Join(w.d.cfg.Shared, "job-1")
	if err := os.Rename(job, job+".away"); err != nil { // as if it were not mounted
		t.Fatal(err)
	}
	w.look()
	w.want("1.10", 0)
	if err := os.Mkdir(job, 0o700); err != nil { // an empty directory in its place
		t.Fatal(err)
	}
	clear(w.d.later)
	w.look()
	w.want("1.10", 0)
	if err := errors.Join(os.Remove(job), os.Rename(job+".away", job)); err != nil {
		t.Fatal(err)
	}
	clear(w.d.later)
	w.save(1, 20, 2) // rank 1 never comes
	w.look()
	w.want("1.10 1.20", 0)
	w.save(2, 20, 1) // a newer epoch makes that worthless
	w.look()
	w.want("2.20", 0)
}

// TestKeepingCopies: a copy is verified before it counts, bounded, and goes when it is not needed any more.
func TestKeepingCopies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10*shardBytes)
	w.save(1, 10, 2)
	const name = "step-0000000010.epoch-1/shard-0000-of-0002.glck"
	ref := checkpoint.Ref{Epoch: 1, Step: 10}
	content, err := os.ReadFile(filepath.Join(w.d.cfg.Root, ownDir, "job-1", name))
	if err != nil {
		t.Fatal(err)
	}
	peer, err := New(Config{Root: t.TempDir(), Shared: w.d.cfg.Shared, MaxBytes: 4 * shardBytes, Node: "n2", Address: func() string { return "h2:2" }})
	if err != nil {
		t.Fatal(err)
	}
	keep := func(name string, content []byte) error {
		return peer.Keep(t.Context(), 1, name, int64(len(content)), bytes.NewReader(content))
	}
	bad := slices.Clone(content)
	bad[5000] ^= 1
	var corrupt *checkpoint.CorruptError
	if err := keep(name, bad); !errors.As(err, &corrupt) {
		t.Errorf("a damaged copy: %v", err)
	}
	for _, hostile := range []string{"../../etc/shard-0000-of-0001.glck", "step-0000000010.epoch-1/../shard-0000-of-0002.glck", "fence/epoch-1", "/" + name, name + "/x"} {
		if err := keep(hostile, content); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("a copy named %q: %v", hostile, err)
		}
		if _, err := peer.Own(1, hostile); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("reading %q: %v", hostile, err)
		}
	}
	if err := keep(name, make([]byte, 3*shardBytes)); !errors.Is(err, ErrNoRoom) {
		t.Errorf("more than half: %v", err)
	}
	if holders, err := w.store.Holders(ref, "shard-0000-of-0002.glck"); err != nil || len(holders) != 0 {
		t.Errorf("holders: %v, %v", holders, err)
	}
	if err := keep(name, content); err != nil {
		t.Fatal(err)
	}
	if holders, err := w.store.Holders(ref, "shard-0000-of-0002.glck"); err != nil || holders["n2"] != "h2:2" {
		t.Errorf("holders: %v, %v", holders, err)
	}
	src, err := peer.Own(1, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}
	peer.Look(t.Context())
	peer.tidy(peer.list())
	if _, err := peer.Own(1, name); err != nil {
		t.Errorf("a copy that is needed is gone: %v", err)
	}
	w.save(2, 20, 1)
	w.look()
	peer.Look(t.Context())
	peer.tidy(peer.list())
	if _, err := peer.Own(1, name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy that nobody needs: %v", err)
	}
}

// TestSettling: a start completes the newest step that can be had; one of which the manifest is damaged, or a shard lost, costs the step, not the job.
func TestSettling(t *testing.T) {
	t.Parallel()
	step := func(n uint64) checkpoint.Ref { return checkpoint.Ref{Epoch: 1, Step: n} }
	for _, c := range []struct {
		name   string
		damage func(w *world, shared string) error
		want   string
		loud   bool
	}{
		{"all there", func(*world, string) error { return nil }, "step-0000000030.epoch-1", false},
		{"damaged manifest", func(_ *world, shared string) error {
			return os.WriteFile(filepath.Join(shared, step(30).String(), "LOCAL.json"), []byte("{}"), 0o600)
		}, "step-0000000020.epoch-1", true},
		{"lost shard", func(w *world, _ string) error {
			return os.RemoveAll(filepath.Join(w.d.cfg.Root, ownDir, "job-1", step(30).String()))
		}, "step-0000000020.epoch-1", true},
		{"damaged shard", func(w *world, _ string) error {
			return os.WriteFile(filepath.Join(w.d.cfg.Root, ownDir, "job-1", step(30).String(), "shard-0000-of-0001.glck"), make([]byte, shardBytes), 0o600)
		}, "step-0000000020.epoch-1", true},
		{"the epoch has begun", func(w *world, _ string) error { return w.store.Fence(w.t.Context(), 2) }, "", false},
	} {
		w := newWorld(t, 100*shardBytes)
		for _, n := range []uint64{10, 20, 30} {
			w.save(1, n, 1)
		}
		shared := filepath.Join(w.d.cfg.Shared, "job-1")
		if err := c.damage(w, shared); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		got, err := Settle(t.Context(), Start{
			Dir: shared, Epoch: 2, First: true, Node: "n1", Grace: time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Own: func(file string) (Source, error) { return w.d.Own(1, file) },
		})
		if err != nil || strings.TrimPrefix(got.Path, shared+"/") != c.want || (got.Lost == step(30)) != c.loud {
			t.Errorf("%s: settled %+v, %v; want %q", c.name, got, err, c.want)
		}
		if loud := strings.Contains(log.String(), "level=ERROR"); loud != c.loud {
			t.Errorf("%s: the log says\n%s", c.name, log.String())
		}
		if epoch, err := w.store.Epoch(t.Context()); err != nil || epoch != 2 {
			t.Errorf("%s: epoch %d has begun, %v", c.name, epoch, err)
		}
		// The other agents of the gang go on now.
		if got, err := Settle(t.Context(), Start{Dir: shared, Epoch: 2}); got != (Settled{}) || err != nil {
			t.Errorf("%s: the next agent: %+v, %v", c.name, got, err)
		}
	}
}
