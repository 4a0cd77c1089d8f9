package checkpoint_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// testKey gives a key of one repeated byte.
func testKey(tb testing.TB, b byte) *checkpoint.Key {
	tb.Helper()
	k, err := checkpoint.NewKey(bytes.Repeat([]byte{b}, checkpoint.KeyBytes))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// openAs opens a store that stores as cfg says.
func openAs(tb testing.TB, fsys checkpoint.FS, cfg checkpoint.Config) *checkpoint.Store {
	tb.Helper()
	cfg.FS, cfg.Job = fsys, testJob
	if cfg.ChunkBytes == 0 {
		cfg.ChunkBytes = testChunk
	}
	s, err := checkpoint.Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// bf16 is the weights of a step as training leaves them: most of the upper byte stays from step to step.
func bf16(step uint64, n int) []byte {
	b := make([]byte, 0, 2*n)
	for i := range n {
		v := math.Float32bits(float32(i*i%1009)/1009 + float32(step)*1e-3)
		b = binary.LittleEndian.AppendUint16(b, uint16(v>>16)) //nolint:gosec // the upper half
	}
	return b
}

// mixed is a shard of all sorts: bfloat16 weights, shard's float32, text, and one that never changes.
func mixed(r checkpoint.Ref, rank, world int) checkpoint.ShardWrite {
	w := shard(r, rank, world)
	all := bf16(r.Step, 4*testLen)
	lo, hi := checkpoint.ShareRange(4*testLen, rank, world)
	w.Tensors = append(w.Tensors, checkpoint.Tensor{
		Name: "half", DType: checkpoint.BFloat16, Global: []int64{4 * testLen}, Offset: []int64{lo}, Shape: []int64{hi - lo}, Data: all[2*lo : 2*hi],
	}, checkpoint.Share("text", bytes.Repeat([]byte("all work and no play "), 400), rank, world), checkpoint.Share("frozen", frozen(), rank, world))
	return w
}

func mix(ctx context.Context, s *checkpoint.Store, r checkpoint.Ref, world int) (m checkpoint.Manifest, err error) {
	for rank := range world {
		if _, err := s.WriteShard(ctx, mixed(r, rank, world)); err != nil {
			return m, err
		}
	}
	return s.Commit(ctx, commitOf(r, world))
}

func mustMix(tb testing.TB, s *checkpoint.Store, r checkpoint.Ref, world int) checkpoint.Manifest {
	tb.Helper()
	m, err := mix(tb.Context(), s, r, world)
	if err != nil {
		tb.Fatalf("save %v: %v", r, err)
	}
	return m
}

// wantMixed checks all of it, read in other parts than it was written in.
func wantMixed(tb testing.TB, s *checkpoint.Store, r checkpoint.Ref) {
	tb.Helper()
	wantTuned(tb, s, r)
	m := mustLoad(tb, s, r)
	reader := s.NewReader(m)
	defer reader.Close() //nolint:errcheck // it was only read from
	want := bf16(r.Step, 4*testLen)
	for rank := range 3 {
		lo, hi := checkpoint.ShareRange(4*testLen, rank, 3)
		got := make([]byte, 2*(hi-lo))
		if err := reader.ReadRaw(tb.Context(), "half", []int64{lo}, []int64{hi - lo}, got); err != nil || !bytes.Equal(got, want[2*lo:2*hi]) {
			tb.Fatalf("%v: bfloat16 of rank %d of 3 is not what was saved: %v", r, rank, err)
		}
	}
}

// encodings are the ways to store, by name.
func encodings(tb testing.TB) map[string]checkpoint.Config {
	k := testKey(tb, 7)
	return map[string]checkpoint.Config{
		"zstd":                {Compress: checkpoint.Zstd},
		"key":                 {Key: k},
		"zstd, key":           {Compress: checkpoint.Zstd, Key: k},
		"zstd, delta":         {Compress: checkpoint.Zstd, Delta: 3},
		"zstd, key, delta":    {Compress: checkpoint.Zstd, Key: k, Delta: 3, ChunkBytes: 3 * testChunk},
		"no references":       {Compress: checkpoint.Zstd, Key: k, ReferenceShare: -1},
		"delta, no reference": {Compress: checkpoint.Zstd, Delta: 2, ReferenceShare: -1, ChunkBytes: 16 * testChunk},
	}
}

func TestEncodedComesBack(t *testing.T) {
	t.Parallel()
	for name, cfg := range encodings(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := faultfs.New()
			s := openAs(t, disk, cfg)
			mustFence(t, s, 1)
			for step := uint64(1); step <= 4; step++ {
				m := mustMix(t, s, ref(1, step), 2)
				wantMixed(t, s, ref(1, step))
				wantMixed(t, openAs(t, disk, cfg), ref(1, step))
				for _, sh := range m.Shards {
					if sh.Encoded == nil || sh.Encoded.Key != "" != (cfg.Key != nil) {
						t.Fatalf("step %d: stored as %+v", step, sh.Encoded)
					}
					if cfg.Compress != "" && cfg.ReferenceShare < 0 && sh.Bytes >= sh.Encoded.Bytes {
						t.Errorf("step %d: %d bytes became %d", step, sh.Encoded.Bytes, sh.Bytes)
					}
				}
			}
			// Another world size goes on from it, in a new process.
			s = openAs(t, disk, cfg)
			mustFence(t, s, 2)
			if _, _, err := s.Latest(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustMix(t, s, ref(2, 5), 3)
			wantMixed(t, s, ref(2, 5))
			if _, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 2, Keep: 1}); err != nil {
				t.Fatal(err)
			}
			wantMixed(t, openAs(t, disk, cfg), ref(2, 5))
		})
	}
}

// TestWithoutTheKey: whoever has no key can verify, copy and remove, and is told what is lacking when it reads.
func TestWithoutTheKey(t *testing.T) {
	t.Parallel()
	disk := faultfs.New()
	first := testKey(t, 1)
	s := openAs(t, disk, checkpoint.Config{Key: first})
	mustFence(t, s, 1)
	mustMix(t, s, ref(1, 1), 2)
	if _, skipped, err := openAs(t, disk, checkpoint.Config{Key: testKey(t, 2)}).Latest(t.Context()); !errors.Is(err, checkpoint.ErrKey) || len(skipped) > 0 {
		t.Errorf("latest with another key: %v, skipped %v: want ErrKey, and nobody who looks for an older one", err, skipped)
	}
	for name, cfg := range map[string]checkpoint.Config{"none": {}, "another": {OldKeys: []*checkpoint.Key{testKey(t, 2)}}} {
		other := openAs(t, disk, cfg)
		m, skipped, err := other.Latest(t.Context())
		if err != nil || len(skipped) > 0 {
			t.Fatalf("%s: latest: %v, skipped %v: a missing key is no damage", name, err, skipped)
		}
		err = other.ReadTensor(t.Context(), m, "w", make([]float32, testLen))
		if !errors.Is(err, checkpoint.ErrKey) || !strings.Contains(err.Error(), first.ID()) {
			t.Errorf("%s: read: %v, want ErrKey with the key's id", name, err)
		}
	}
	// A new key: the old one still reads, and what the old one has encrypted is not referred to.
	s = openAs(t, disk, checkpoint.Config{Key: testKey(t, 2), OldKeys: []*checkpoint.Key{first}})
	wantMixed(t, s, ref(1, 1))
	if m := mustMix(t, s, ref(1, 2), 2); len(m.Refs()) > 0 {
		t.Errorf("refers to what another key has encrypted: %v", m.Refs())
	}
	wantMixed(t, openAs(t, disk, checkpoint.Config{Key: testKey(t, 2)}), ref(1, 2))
	for _, name := range disk.Names() {
		if strings.HasSuffix(name, "/") {
			continue
		}
		data := readAll(t, disk, name)
		for _, secret := range [][]byte{bytes.Repeat([]byte{1}, 32), []byte("all work and no play"), []byte("AQEBAQEBAQEB"), []byte(strings.Repeat("01", 32))} {
			if bytes.Contains(data, secret) {
				t.Errorf("%s has %q in the clear", name, secret)
			}
		}
	}
}

func readAll(tb testing.TB, fsys checkpoint.FS, name string) []byte {
	tb.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	size, err := f.Size()
	data := make([]byte, size)
	if err == nil && size > 0 {
		_, err = f.ReadAt(data, 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		tb.Fatal(err)
	}
	return data
}

// TestEveryFlippedBitOfAnEncodedOneIsFound flips bits all over, padding and header page included.
func TestEveryFlippedBitOfAnEncodedOneIsFound(t *testing.T) {
	t.Parallel()
	disk := faultfs.New()
	s := openAs(t, disk, checkpoint.Config{Compress: checkpoint.Zstd, Key: testKey(t, 3), Delta: 4})
	mustFence(t, s, 1)
	mustMix(t, s, ref(1, 1), 1)
	m := mustMix(t, s, ref(1, 2), 1)
	if len(m.Refs()) != 1 {
		t.Fatalf("refers to %v", m.Refs())
	}
	flips := 0
	for _, file := range []string{m.Dir + "/MANIFEST.json", m.Dir + "/" + m.Shards[0].File, m.FileNames()[1].Name} {
		used := m.Shards[0].Origins[0]
		for at := 0; at < len(readAll(t, disk, file)); at += 149 {
			chunk := at / testChunk
			if strings.HasPrefix(file, ref(1, 1).String()) && !slices.ContainsFunc(used.Spans, func(s checkpoint.Span) bool { return chunk >= s.First && chunk < s.First+len(s.Sums) }) {
				continue // not of this checkpoint
			}
			flips++
			if err := disk.Flip(file, int64(at), uint(at)); err != nil {
				t.Fatal(err)
			}
			got, _, err := s.Latest(t.Context())
			if err == nil && got.Ref() == m.Ref() {
				t.Fatalf("%s byte %d: not found", file, at)
			}
			if err := disk.Flip(file, int64(at), uint(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if flips < 100 {
		t.Errorf("only %d flips", flips)
	}
	wantMixed(t, s, ref(1, 2))
}

// TestChunksCanNotBeSwapped puts whole encrypted files, with manifests that vouch for them, where they do not belong.
func TestChunksCanNotBeSwapped(t *testing.T) {
	t.Parallel()
	disk := faultfs.New()
	s := openAs(t, disk, checkpoint.Config{Key: testKey(t, 3), ReferenceShare: -1})
	mustFence(t, s, 1)
	a, b := mustMix(t, s, ref(1, 1), 2), mustMix(t, s, ref(1, 2), 2)
	for what, swap := range map[string]func(m *checkpoint.Manifest){
		"another step's file": func(m *checkpoint.Manifest) {
			m.Shards[0].Chunks, m.Shards[0].Encoded = a.Shards[0].Chunks, a.Shards[0].Encoded
			m.Dir = a.Dir
		},
		"another step's salt": func(m *checkpoint.Manifest) {
			e := *m.Shards[0].Encoded
			e.Salt = a.Shards[0].Encoded.Salt
			m.Shards[0].Encoded = &e
		},
		"another rank's place": func(m *checkpoint.Manifest) { m.Shards[0].Rank = 1 },
	} {
		m := b
		m.Shards = slices.Clone(b.Shards)
		swap(&m)
		var c *checkpoint.CorruptError
		err := s.ReadTensor(t.Context(), m, "w", make([]float32, testLen))
		if !errors.As(err, &c) || !strings.Contains(err.Error(), "not encrypted for this place") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	secret := bytes.Repeat([]byte{0xab}, 32)
	want, err := checkpoint.NewKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	env := map[string]string{"HEX": strings.Repeat("ab", 32), "B64": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=", "SHORT": "abab"}
	for _, content := range [][]byte{secret, []byte(strings.Repeat("ab", 32) + "\n")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, r := range []string{"file:" + path, "env:HEX", "env:B64", "command:cat " + path} {
			k, err := checkpoint.LoadKey(t.Context(), r, func(n string) string { return env[n] })
			if err != nil || k.ID() != want.ID() {
				t.Errorf("%s: %v, %v", r, k, err)
			}
		}
	}
	for _, r := range []string{"", "file:", "file:/none", "env:NONE", "env:SHORT", "command:exit 3", "command:yes", "http://x", strings.Repeat("ab", 32)} {
		_, err := checkpoint.LoadKey(t.Context(), r, func(n string) string { return env[n] })
		if err == nil || strings.Contains(err.Error(), "abab") {
			t.Errorf("%.20s: %v", r, err)
		}
	}
}

func TestConfigFromEnv(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		checkpoint.EnvCompress: "zstd", checkpoint.EnvDelta: "8", checkpoint.EnvReferences: "0.5",
		checkpoint.EnvKey: "env:K", checkpoint.EnvOldKeys: "env:K, env:K", "K": strings.Repeat("ab", 32),
	}
	var cfg checkpoint.Config
	err := cfg.FromEnv(t.Context(), func(n string) string { return env[n] })
	if err != nil || cfg.Compress != checkpoint.Zstd || cfg.Delta != 8 || cfg.ReferenceShare != 0.5 || cfg.Key == nil || len(cfg.OldKeys) != 2 {
		t.Errorf("%+v, %v", cfg, err)
	}
	before := cfg
	if err := cfg.FromEnv(t.Context(), func(string) string { return "" }); err != nil || cfg.Key != before.Key || cfg.Delta != 8 {
		t.Errorf("an empty environment changed %+v to %+v, %v", before, cfg, err)
	}
	for name, v := range map[string]string{
		checkpoint.EnvCompress: "gzip", checkpoint.EnvDelta: "1", checkpoint.EnvReferences: "2", checkpoint.EnvKey: "env:NONE", checkpoint.EnvOldKeys: "x",
	} {
		err := cfg.FromEnv(t.Context(), func(n string) string {
			if n == name {
				return v
			}
			return ""
		})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, v, err)
		}
	}
	for _, cfg := range []checkpoint.Config{{Compress: "x"}, {Delta: 1, Compress: checkpoint.Zstd}, {Delta: 4}} {
		cfg.FS, cfg.Job = faultfs.New(), testJob
		if _, err := checkpoint.Open(cfg); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("%+v was taken: %v", cfg, err)
		}
	}
}
