package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// below is a directory of a disk, as a file system of its own.
type below struct {
	disk *faultfs.FS
	dir  string
}

func (b below) at(name string) string           { return b.dir + "/" + name }
func (b below) Mkdir(name string) error         { return b.disk.Mkdir(b.at(name)) }
func (b below) Rename(from, to string) error    { return b.disk.Rename(b.at(from), b.at(to)) }
func (b below) Remove(name string) error        { return b.disk.Remove(b.at(name)) }
func (b below) SyncFile(name string) error      { return b.disk.SyncFile(b.at(name)) }
func (b below) SyncDir(name string) error       { return b.disk.SyncDir(b.at(name)) }
func (b below) RenameNew(from, to string) error { return b.disk.RenameNew(b.at(from), b.at(to)) }

func (b below) Create(name string, bulk bool) (checkpoint.WriteFile, error) {
	return b.disk.Create(b.at(name), bulk)
}

func (b below) Append(name string, at int64, bulk bool) (checkpoint.WriteFile, error) {
	return b.disk.Append(b.at(name), at, bulk)
}

func (b below) Open(name string) (checkpoint.ReadFile, error)   { return b.disk.Open(b.at(name)) }
func (b below) ReadDir(name string) ([]checkpoint.Entry, error) { return b.disk.ReadDir(b.at(name)) }

func dirOf(tb testing.TB, disk *faultfs.FS, name string) below {
	tb.Helper()
	if err := errors.Join(disk.Mkdir(name), disk.SyncDir(".")); err != nil && !errors.Is(err, fs.ErrExist) {
		tb.Fatal(err)
	}
	return below{disk, name}
}

// node is a node's own disk: own holds its ranks' shards, whole the copies that starts are made from; and the shared storage.
type node struct {
	shared, disk *faultfs.FS
	own, whole   below
	far          *checkpoint.Store // as the job's ranks had it when they saved

	mu    sync.Mutex
	cut   string   // the chunk of which the fetch fails, FILE@PLACE; "": none
	count int      // fetches
	bad   []string // what was told as damaged
}

// newNode has a checkpoint of two ranks complete, of which rank 0's shard is on this node's disk too.
func newNode(tb testing.TB) *node {
	tb.Helper()
	n := &node{shared: faultfs.New(), disk: faultfs.New()}
	n.own, n.whole = dirOf(tb, n.disk, "own"), dirOf(tb, n.disk, "whole")
	n.far = open(tb, n.shared)
	mustFence(tb, n.far, 1)
	mustSave(tb, n.far, ref(1, 10), 2)
	name := ref(1, 10).String() + "/shard-0000-of-0002.glck"
	put(tb, n.own, name, readAll(tb, n.shared, name))
	if err := n.own.SyncFile(name); err != nil {
		tb.Fatal(err)
	}
	for _, dir := range []string{".", ref(1, 10).String()} {
		if err := n.own.SyncDir(dir); err != nil {
			tb.Fatal(err)
		}
	}
	return n
}

// bring makes the whole copy.
func (n *node) bring(ctx context.Context, m checkpoint.Manifest, manifest []byte, s *checkpoint.Store) error {
	sums := m.Sums()
	_, err := s.ReceiveFrom(ctx, checkpoint.ReceiveRequest{
		Manifest: manifest, Whole: true,
		Link: func(name, to string) (bool, error) {
			err := n.disk.Link("own/"+m.Ref().String()+"/"+name, n.whole.at(to))
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return err == nil, err
		},
		Damaged: func(name string, _ error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.bad = append(n.bad, name)
		},
		Fetch: func(ctx context.Context, name string, at int64, dst []byte) error {
			n.mu.Lock()
			n.count++
			n.mu.Unlock()
			if n.cut == fmt.Sprintf("%s@%d", name, at) {
				return errors.New("the network is gone")
			}
			f, err := n.far.OpenFile(m, name)
			if err != nil {
				return err
			}
			defer f.Close() //nolint:errcheck // it was only read from
			if _, err := f.ReadChunks(ctx, int(at/f.ChunkBytes()), dst); err != nil {
				return err
			}
			return sums.Check(name, at, dst)
		},
	})
	return err
}

// start makes the copy of the newest one.
func (n *node) start(tb testing.TB) error {
	tb.Helper()
	m := mustLoad(tb, n.far, ref(1, 10))
	manifest, err := n.far.ManifestFile(&m)
	if err != nil {
		tb.Fatal(err)
	}
	return n.bring(tb.Context(), m, manifest, open(tb, n.whole))
}

// wantWhole checks that the copy is whole by itself.
func (n *node) wantWhole(tb testing.TB, where string) {
	tb.Helper()
	s := open(tb, n.whole)
	m, skipped, err := s.Latest(tb.Context())
	if err != nil || len(skipped) > 0 || m.Ref() != ref(1, 10) {
		tb.Fatalf("%s: the copy is %v, %v, %v\n%v", where, m.Ref(), skipped, err, n.disk.Names())
	}
	wantContent(tb, s, m)
	for _, name := range n.disk.Names() {
		if strings.Contains(name, ".receiving") {
			tb.Fatalf("%s: %s stays", where, name)
		}
	}
}

// TestPowerCutAtEveryOperationOfAWholeCopy: what is left is no copy or a whole one, the rank's own shard is as it was, and the next start makes it whole.
func TestPowerCutAtEveryOperationOfAWholeCopy(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.disk.Arm(faultfs.Plan{})
	if err := n.start(t); err != nil {
		t.Fatal(err)
	}
	total := n.disk.Ops()
	if total < 25 {
		t.Fatalf("only %d operations: the test does not test", total)
	}
	own := ref(1, 10).String() + "/shard-0000-of-0002.glck"
	for mode, tries := range map[faultfs.CrashMode]int{faultfs.DropAll: 1, faultfs.KeepNames: 1, faultfs.Killed: 1, faultfs.Some: 4} {
		for at := 1; at <= total; at++ {
			for try := range tries {
				n := newNode(t)
				want := readAll(t, n.own, own)
				n.disk.Arm(faultfs.Plan{PowerAt: at})
				err := n.start(t)
				where := fmt.Sprintf("mode %d, cut at operation %d, seed %d (the start said: %v)", mode, at, try, err)
				n.disk.Crash(mode, rand.New(rand.NewPCG(uint64(try), uint64(at))))
				_, _, lerr := open(t, n.whole).Latest(t.Context())
				if lerr == nil {
					n.wantWhole(t, where)
				} else if !errors.Is(lerr, checkpoint.ErrNone) || err == nil {
					t.Fatalf("%s: %v", where, lerr)
				}
				if err := n.start(t); err != nil {
					t.Fatalf("%s: the next start: %v", where, err)
				}
				n.wantWhole(t, where)
				if got := readAll(t, n.own, own); string(got) != string(want) {
					t.Fatalf("%s: the rank's own shard has changed", where)
				}
			}
		}
	}
}

// TestAFetchThatWasCutGoesOn: at each chunk, of tensors and of files, what has come is not fetched again.
func TestAFetchThatWasCutGoesOn(t *testing.T) {
	t.Parallel()
	for _, files := range []bool{false, true} {
		first := newNode(t)
		m := first.saved(t, files)
		left := 0 // chunks, by all cuts
		for _, f := range m.FileNames() {
			for at := int64(0); at < f.Size && f.Name != "shard-0000-of-0002.glck"; at += testChunk { // that one is linked
				left += cutAt(t, files, fmt.Sprintf("%s@%d", f.Name, at))
			}
		}
		if left < 3 {
			t.Errorf("files %v: all cuts have left %d chunks: the test does not test", files, left)
		}
	}
}

// saved gives the checkpoint of tensors, or one of files.
func (n *node) saved(tb testing.TB, files bool) checkpoint.Manifest {
	tb.Helper()
	if files {
		return commitFiles(tb, n.far, n.shared, ref(1, 11))
	}
	return mustLoad(tb, n.far, ref(1, 10))
}

// cutAt cuts a fetch at one chunk, and gives how many it left.
func cutAt(t *testing.T, files bool, chunk string) (left int) {
	t.Helper()
	n := newNode(t)
	m := n.saved(t, files)
	manifest, err := n.far.ManifestFile(&m)
	if err != nil {
		t.Fatal(err)
	}
	n.cut = chunk
	if err := n.bring(t.Context(), m, manifest, open(t, n.whole)); err == nil {
		t.Fatalf("%s is not fetched", chunk)
	}
	n.disk.Crash(faultfs.Killed, nil)
	left, lacks := n.chunksThere(t, m)
	n.cut, n.count = "", 0
	if err := n.bring(t.Context(), m, manifest, open(t, n.whole)); err != nil {
		t.Fatal(err)
	}
	if n.count != lacks {
		t.Errorf("files %v, cut at %s: %d chunks were there, %d lacked, and %d were fetched then", files, chunk, left, lacks, n.count)
	}
	s := open(t, n.whole)
	got, err := s.Load(t.Context(), m.Ref())
	if err == nil {
		err = s.Verify(t.Context(), got)
	}
	if err != nil {
		t.Fatalf("files %v, cut at %s: %v", files, chunk, err)
	}
	return left
}

// chunksThere counts the chunks that a cut fetch has left, and those that lack.
func (n *node) chunksThere(tb testing.TB, m checkpoint.Manifest) (there, lack int) {
	tb.Helper()
	size := func(name string) int64 {
		f, err := n.whole.Open(m.Ref().String() + "/" + name)
		if err != nil {
			return -1
		}
		bytes, err := f.Size()
		if err != nil {
			tb.Fatal(err)
		}
		return bytes
	}
	for i, f := range m.FileNames() {
		all := int((f.Size + testChunk - 1) / testChunk)
		part := size(path.Join(path.Dir(f.Name), fmt.Sprintf(".receiving-%d", i)))
		switch {
		case f.Name == "shard-0000-of-0002.glck", size(f.Name) == f.Size: // it is linked, or has come
		case part == f.Size:
			there += all
		default:
			had := int(max(part, 0) / testChunk)
			there, lack = there+had, lack+all-had
		}
	}
	return there, lack
}

// TestFlippedBitsBeforeAWholeCopy: in the shard on this disk, in what a cut try has left under its own name or as a part, and in the source.
func TestFlippedBitsBeforeAWholeCopy(t *testing.T) {
	t.Parallel()
	own := ref(1, 10).String() + "/shard-0000-of-0002.glck"
	other := ref(1, 10).String() + "/shard-0001-of-0002.glck"
	n := newNode(t)
	if err := n.disk.Flip("own/"+own, testChunk+7, 3); err != nil {
		t.Fatal(err)
	}
	spoilt := readAll(t, n.own, own)
	if err := n.start(t); err != nil || len(n.bad) != 1 {
		t.Fatalf("with a damaged shard here: %v, told %v", err, n.bad)
	}
	n.wantWhole(t, "a damaged shard here")
	if string(readAll(t, n.own, own)) != string(spoilt) {
		t.Error("the rank's own file was written to")
	}
	// A try that was cut: the first chunk of its part, and then a file in its place.
	n = newNode(t)
	n.cut = fmt.Sprintf("shard-0001-of-0002.glck@%d", 2*testChunk)
	if err := n.start(t); err == nil {
		t.Fatal("the fetch did not fail")
	}
	n.cut = ""
	for _, name := range n.disk.Names() {
		if strings.Contains(name, ".receiving") && strings.HasPrefix(name, "whole/") {
			if err := n.disk.Flip(name, 1, 1); err != nil {
				t.Logf("%s is empty: %v", name, err)
			}
		}
	}
	if err := n.start(t); err != nil {
		t.Fatal(err)
	}
	n.wantWhole(t, "a damaged part")
	if err := errors.Join(n.disk.Remove(n.whole.at(ref(1, 10).String()+"/MANIFEST.json")), n.disk.Flip(n.whole.at(other), 9, 1)); err != nil {
		t.Fatal(err)
	}
	if err := n.start(t); err != nil {
		t.Fatal(err)
	}
	n.wantWhole(t, "a damaged file in its place")
	// The only source.
	n = newNode(t)
	if err := n.shared.Flip(other, 3*testChunk, 1); err != nil {
		t.Fatal(err)
	}
	var damage *checkpoint.CorruptError
	if err := n.start(t); !errors.As(err, &damage) {
		t.Fatalf("with the only source damaged: %v", err)
	}
	if _, _, err := open(t, n.whole).Latest(t.Context()); !errors.Is(err, checkpoint.ErrNone) {
		t.Fatalf("a damaged copy was committed: %v", err)
	}
}

// TestNoRoomForAWholeCopy: the disk is full at each byte of a chunk, and then it is not.
func TestNoRoomForAWholeCopy(t *testing.T) {
	t.Parallel()
	var full *checkpoint.NoSpaceError
	failed := 0
	for room := int64(16 << 10); ; room += 1500 {
		n := newNode(t)
		n.disk.Arm(faultfs.Plan{Capacity: room})
		err := n.start(t)
		if err == nil {
			break
		}
		failed++
		if !errors.As(err, &full) {
			t.Fatalf("with room for %d bytes: %v", room, err)
		}
		n.disk.Arm(faultfs.Plan{})
		if err := n.start(t); err != nil {
			t.Fatalf("with room for %d bytes, then more: %v", room, err)
		}
		n.wantWhole(t, "once there is room")
	}
	if failed < 3 {
		t.Errorf("the disk was full %d times: the test does not test", failed)
	}
}
