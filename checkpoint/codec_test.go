package checkpoint

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func testCodec(tb testing.TB, key byte) *codec {
	tb.Helper()
	s, err := Open(Config{FS: &Dir{}, Job: "j"})
	if err != nil {
		tb.Fatal(err)
	}
	e := &Encoding{Compress: Zstd, Bytes: 4 * Align}
	if key != 0 {
		k, err := NewKey(bytes.Repeat([]byte{key}, KeyBytes))
		if err != nil {
			tb.Fatal(err)
		}
		s.keys = []*Key{k}
		e.Key, e.Salt = k.id, make([]byte, saltBytes)
	}
	c, err := s.codecOf(e, Ref{Epoch: 1, Step: 2}, 0, 1, Align)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestFrames(t *testing.T) {
	t.Parallel()
	random := make([]byte, 3*Align)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(random) //nolint:errcheck // it never fails
	for name, data := range map[string][]byte{
		"zeros": make([]byte, 3*Align), "random": random, "one byte": {7}, "odd": random[:1001], "text": bytes.Repeat([]byte("abcdefg"), 1000),
	} {
		for _, key := range []byte{0, 5} {
			c := testCodec(t, key)
			for _, planes := range []int{1, 2, 4, 8} {
				scratch, got := make([]byte, len(data)), make([]byte, len(data))
				frame := c.encode([]byte("before"), data, 3, planes, Zstd, scratch)
				if string(frame[:6]) != "before" || int64(len(frame)-6) > maxFrame(int64(len(data))) {
					t.Fatalf("%s, %d planes: the frame has %d bytes", name, planes, len(frame))
				}
				if err := c.decode(got, bytes.Clone(frame[6:]), 3, nil); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s, %d planes, key %d: does not come back: %v", name, planes, key, err)
				}
				if key == 0 {
					continue
				}
				for _, chunk := range []int{2, 4} {
					if c.decode(got, bytes.Clone(frame[6:]), chunk, nil) == nil {
						t.Errorf("%s: chunk 3 was taken for chunk %d", name, chunk)
					}
				}
				frame[len(frame)-1] ^= 1
				if c.decode(got, frame[6:], 3, nil) == nil {
					t.Errorf("%s: a bit flipped in the tag was not seen", name)
				}
			}
		}
	}
}

// TestBombs decodes frames that say, or are, far more than their chunk, and counts what that allocates.
func TestBombs(t *testing.T) { // not parallel: it counts what the process allocates
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	huge := enc.EncodeAll(make([]byte, 32<<20), nil)
	var buf bytes.Buffer // the same without its size in the header
	w, err := zstd.NewWriter(&buf)
	for range 8 {
		if err == nil {
			_, err = w.Write(make([]byte, 4<<20))
		}
	}
	if err := errors.Join(err, w.Close(), enc.Close()); err != nil {
		t.Fatal(err)
	}
	lies := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f} // 2^63-1 bytes, one segment
	c := testCodec(t, 0)
	dst := make([]byte, Align)
	var before, after runtime.MemStats
	for name, data := range map[string][]byte{"with its size": huge, "without": buf.Bytes(), "a lie": lies} {
		for _, kind := range []byte{frameZstd, 2, 4, 8} {
			runtime.ReadMemStats(&before)
			if err := c.decode(dst, append([]byte{kind}, data...), 0, nil); err == nil {
				t.Errorf("%s, kind %d: was taken", name, kind)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 20<<20 {
				t.Errorf("%s, kind %d: a chunk of %d bytes allocated %d", name, kind, len(dst), n)
			}
		}
	}
}

// FuzzFrame gives the decoder frames that nobody encoded.
func FuzzFrame(f *testing.F) {
	c := testCodec(f, 0)
	for _, planes := range []int{1, 2, 4, 8} {
		f.Add(c.encode(nil, bytes.Repeat([]byte("weights "), 512), 0, planes, Zstd, make([]byte, Align)))
	}
	f.Add([]byte{})
	f.Add([]byte{frameRaw})
	f.Add([]byte{3, 0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, frame []byte) {
		dst := make([]byte, Align)
		if err := c.decode(dst, bytes.Clone(frame), 0, nil); err == nil {
			again := make([]byte, Align)
			back := c.encode(nil, dst, 0, 1, Zstd, make([]byte, Align))
			if err := c.decode(again, back, 0, nil); err != nil || !bytes.Equal(dst, again) {
				t.Fatalf("not stable: %v", err)
			}
		}
	})
}

func sampleEncoded() Manifest {
	m := sampleReference()
	m.Shards[1].Encoded = &Encoding{Compress: Zstd, Key: strings.Repeat("0f", keyIDBytes), Salt: make([]byte, saltBytes), Bytes: 2 * Align, Frames: []int64{100, 200}}
	m.Shards[1].Origins = []Origin{{
		Epoch: 1, Step: 100, WorldSize: 1, Bytes: 3 * Align, ChunkBytes: Align, Spans: []Span{{First: 1, Sums: make([]Sum, 2)}},
		Encoded: &Encoding{Compress: Zstd, Bytes: 3 * Align, Frames: []int64{100, 4000, 100}},
	}}
	t := m.Shards[1].Tensors[0]
	t.Name, t.DType, t.Base, t.BaseOffset, t.FileOffset = "half", BFloat16, 1, Align, Align
	t.Global, t.Offset, t.Shape = []int64{2}, []int64{0}, []int64{2}
	m.Shards[1].Tensors = append(m.Shards[1].Tensors, t)
	m.Shards[1].Tensors[0].FileOffset = Align
	m.Shards[1].Tensors[1].FileOffset = Align
	m.Shards[1].Tensors[0].From = 1
	return m
}

// TestHostileEncodings refuses what can not be.
func TestHostileEncodings(t *testing.T) {
	t.Parallel()
	good := sampleEncoded()
	if _, err := good.Encode(); err != nil {
		t.Fatal(err)
	}
	for what, bend := range map[string]func(*ShardInfo, *Encoding, *TensorInfo){
		"unknown compression":   func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Compress = "rar" },
		"neither":               func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Compress, e.Key, e.Salt = "", "", nil },
		"key without salt":      func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Salt = nil },
		"salt without key":      func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Key = "" },
		"long key":              func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Key += "0" },
		"too few frames":        func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Frames = e.Frames[:1] },
		"empty frame":           func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Frames[0] = 0 },
		"negative frame":        func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Frames[0] = -100 },
		"huge frame":            func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Frames[0] = 1 << 62 },
		"frames past the end":   func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Frames[0], e.Frames[1] = 4000, 4000 },
		"frames end too early":  func(s *ShardInfo, _ *Encoding, _ *TensorInfo) { s.Bytes += Align; s.Chunks = make([]Sum, 3) },
		"huge file":             func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Bytes = 1 << 62 },
		"unaligned file":        func(_ *ShardInfo, e *Encoding, _ *TensorInfo) { e.Bytes-- },
		"base of another type":  func(_ *ShardInfo, _ *Encoding, x *TensorInfo) { x.DType = Float16 },
		"no such base":          func(_ *ShardInfo, _ *Encoding, x *TensorInfo) { x.Base = 2 },
		"negative base":         func(_ *ShardInfo, _ *Encoding, x *TensorInfo) { x.Base = -1 },
		"place without base":    func(_ *ShardInfo, _ *Encoding, x *TensorInfo) { x.Base = 0 },
		"base in the header":    func(_ *ShardInfo, _ *Encoding, x *TensorInfo) { x.BaseOffset = 0 },
		"base past the end":     func(_ *ShardInfo, _ *Encoding, x *TensorInfo) { x.BaseOffset = 3 * Align },
		"referred to and based": func(_ *ShardInfo, _ *Encoding, x *TensorInfo) { x.From = 1 },
		"base without checksum": func(s *ShardInfo, _ *Encoding, _ *TensorInfo) {
			s.Origins[0].Spans = []Span{{First: 2, Sums: make([]Sum, 1)}}
		},
	} {
		m := sampleEncoded()
		sh := &m.Shards[1]
		bend(sh, sh.Encoded, &sh.Tensors[1])
		if _, err := m.Encode(); err == nil {
			t.Errorf("%s: was taken", what)
		}
	}
}
