package checkpoint

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sampleManifest() Manifest {
	return Manifest{
		Job: "j", Epoch: 2, Step: 120, WorldSize: 2, ChunkBytes: Align, Meta: map[string]string{"lr": "<0.1>"},
		Shards: []ShardInfo{
			{Rank: 0, File: shardName(0, 2), Bytes: 2 * Align, Chunks: make([]Sum, 2), Tensors: []TensorInfo{
				{Name: "w", DType: Float32, Global: []int64{3, 4}, Offset: []int64{0, 0}, Shape: []int64{2, 4}, FileOffset: Align},
			}},
			{Rank: 1, File: shardName(1, 2), Bytes: 2 * Align, Chunks: make([]Sum, 2), Tensors: []TensorInfo{
				{Name: "w", DType: Float32, Global: []int64{3, 4}, Offset: []int64{2, 0}, Shape: []int64{1, 4}, FileOffset: Align},
			}},
		},
	}
}

// wrap gives a body, whatever it is, in an envelope that is right.
func wrap(format string, body []byte) []byte {
	e := envelope{Format: format, Version: plainVersion, Sum: sumOf(body), Body: body}
	return e.bytes()
}

// wrapAs does so with a key's HMAC.
func wrapAs(k *Key, format string, body []byte) []byte {
	e := envelope{Format: format, Version: FormatVersion, Sum: sumOf(body), Key: k.id, Body: body}
	e.MAC = k.authenticate(&e)
	return e.bytes()
}

// FuzzManifest gives the parser damaged files: raw ones, and, so that it comes past the checksum, bodies in a right envelope.
func FuzzManifest(f *testing.F) {
	m := sampleManifest()
	good, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	body, err := json.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	key, err := NewKey(make([]byte, KeyBytes))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(wrapAs(key, manifestFormat, body))
	f.Add(body)
	f.Add([]byte(`{"format":"gangline-checkpoint","version":3,"xxh3_128":"00","body":{}}`))
	f.Add(bytes.ReplaceAll(body, []byte(`"shape":[2,4]`), []byte(`"shape":[9223372036854775807,4]`)))
	f.Add(bytes.ReplaceAll(body, []byte(`shard-0000-of-0002.glck`), []byte(`../../../etc/passwd`)))
	refers := sampleReference()
	if body, err = json.Marshal(refers); err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add(bytes.ReplaceAll(body, []byte(`"step":100`), []byte(`"step":120`)))
	f.Add(bytes.ReplaceAll(body, []byte(`"first":1`), []byte(`"first":9223372036854775807`)))
	encoded := sampleEncoded()
	if body, err = json.Marshal(encoded); err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add(bytes.ReplaceAll(body, []byte(`"frames":[100,`), []byte(`"frames":[9223372036854775807,`)))
	files := sampleFiles()
	if body, err = json.Marshal(files); err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add(bytes.ReplaceAll(body, []byte(`a/b.pt`), []byte(`../b.pt`)))
	f.Add(bytes.ReplaceAll(body, []byte(`"bytes":5000`), []byte(`"bytes":9223372036854775807`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range [][]byte{data, wrap(manifestFormat, data), wrapAs(key, manifestFormat, data)} {
			m, err := ParseManifest(file)
			if err != nil {
				continue
			}
			for _, e := range m.FileNames() {
				if !fs.ValidPath(e.Name) || e.Name == "." || e.Name == manifestName || e.Size < 0 {
					t.Fatalf("a manifest leads to %q", e.Name)
				}
			}
			for _, r := range m.Refs() {
				if r.Compare(m.Ref()) >= 0 {
					t.Fatalf("%v refers to %v", m.Ref(), r)
				}
			}
			if m.ReadBytes() < m.Bytes() {
				t.Fatalf("%d bytes to read, of which %d are its own", m.ReadBytes(), m.Bytes())
			}
			again, err := m.Encode()
			if err != nil {
				t.Fatalf("parsed, but does not encode: %v", err)
			}
			back, err := ParseManifest(again)
			if err != nil {
				t.Fatalf("encoded, but does not parse: %v", err)
			}
			twice, err := back.Encode()
			if err != nil || !bytes.Equal(again, twice) {
				t.Fatalf("not stable: %v\n%s", err, cmp.Diff(string(again), string(twice)))
			}
		}
	})
}

// sampleReference is a sample whose rank 0 refers to an earlier checkpoint of three ranks.
func sampleReference() Manifest {
	m := sampleManifest()
	m.Shards[0].Origins = []Origin{{Epoch: 2, Step: 100, WorldSize: 3, Rank: 2, Bytes: 4 * Align, ChunkBytes: Align, Spans: []Span{{First: 1, Sums: make([]Sum, 2)}}}}
	m.Shards[0].Tensors[0].From = 1
	return m
}

// TestHostileReferences refuses references that lead elsewhere, in circles, or to what has no checksum.
func TestHostileReferences(t *testing.T) {
	t.Parallel()
	good := sampleReference()
	if _, err := good.Encode(); err != nil {
		t.Fatal(err)
	}
	for what, bend := range map[string]func(*Manifest, *Origin, *TensorInfo){
		"itself":        func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Step = 120 },
		"a later one":   func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Epoch = 3 },
		"epoch 0":       func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Epoch = 0 },
		"rank":          func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Rank = 3 },
		"negative rank": func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Rank = -1 },
		"world size":    func(_ *Manifest, b *Origin, _ *TensorInfo) { b.WorldSize = MaxWorldSize + 1 },
		"unaligned":     func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Bytes++ },
		"huge":          func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Bytes = math.MaxInt64 &^ (Align - 1) },
		"chunks":        func(_ *Manifest, b *Origin, _ *TensorInfo) { b.ChunkBytes = 1 },
		"no spans":      func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Spans = nil },
		"empty span":    func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Spans = append(b.Spans, Span{First: 3}) },
		"span outside":  func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Spans[0].First = 3 },
		"negative span": func(_ *Manifest, b *Origin, _ *TensorInfo) { b.Spans[0].First = -1 },
		"overlapping spans": func(_ *Manifest, b *Origin, _ *TensorInfo) {
			b.Spans = append(b.Spans, Span{First: 2, Sums: make([]Sum, 1)})
		},
		"no checksum":     func(_ *Manifest, _ *Origin, x *TensorInfo) { x.FileOffset = 3 * Align },
		"in the header":   func(_ *Manifest, _ *Origin, x *TensorInfo) { x.FileOffset = 0 },
		"beyond the file": func(_ *Manifest, _ *Origin, x *TensorInfo) { x.FileOffset = 4 * Align },
		"no such file":    func(_ *Manifest, _ *Origin, x *TensorInfo) { x.From = 2 },
		"negative file":   func(_ *Manifest, _ *Origin, x *TensorInfo) { x.From = -1 },
		"twice":           func(m *Manifest, b *Origin, _ *TensorInfo) { m.Shards[0].Origins = append(m.Shards[0].Origins, *b) },
		"too many":        func(m *Manifest, _ *Origin, _ *TensorInfo) { m.Shards[0].Origins = make([]Origin, MaxOrigins+1) },
		"ranks do not agree": func(m *Manifest, b *Origin, _ *TensorInfo) {
			c := *b
			c.Bytes += Align
			m.Shards[1].Origins = []Origin{c}
		},
	} {
		m := sampleReference()
		bend(&m, &m.Shards[0].Origins[0], &m.Shards[0].Tensors[0])
		if _, err := m.Encode(); err == nil {
			t.Errorf("%s: was taken", what)
		}
	}
}

// FuzzShardHeader gives the header parser damaged pages.
func FuzzShardHeader(f *testing.F) {
	h := shardHeader{job: "digits-7", epoch: 3, step: 120, rank: 2, worldSize: 8, bytes: 3 * Align, chunkBytes: Align}
	f.Add(h.page())
	f.Add(make([]byte, Align))
	f.Add([]byte(shardMagic))
	f.Fuzz(func(t *testing.T, page []byte) {
		h, err := parseShardHeader(page)
		if err != nil {
			return
		}
		if back, err := parseShardHeader(h.page()); err != nil || back != h {
			t.Fatalf("round trip: %+v, %v; want %+v", back, err, h)
		}
	})
}

// TestParsersRefuse checks the reasons for files that are whole but wrong.
func TestParsersRefuse(t *testing.T) {
	t.Parallel()
	m := sampleManifest()
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for name, swap := range map[string][2]string{
		"path leads elsewhere": {"shard-0001-of-0002.glck", "../../../../../../etc/x"},
		"gap in a tensor":      {`"offset":[2,0],"shape":[1,4]`, `"offset":[2,1],"shape":[1,3]`},
		"world size":           {`"world_size":2`, `"world_size":3`},
		"unaligned tensor":     {`"file_offset":4096`, `"file_offset":4097`},
		"tensor past the end":  {`"file_offset":4096`, `"file_offset":8192`},
		"tensor in the header": {`"file_offset":4096`, `"file_offset":0`},
		"huge chunk":           {`"chunk_bytes":4096`, `"chunk_bytes":1099511627776`},
		"ranks in disorder":    {`"rank":0`, `"rank":1`},
		"negative shape":       {`"shape":[1,4]`, `"shape":[-1,4]`},
		"types differ":         {`"dtype":"float32","global":[3,4],"offset":[2,0]`, `"dtype":"float64","global":[3,4],"offset":[2,0]`},
	} {
		bad := bytes.ReplaceAll(body, []byte(swap[0]), []byte(swap[1]))
		if bytes.Equal(bad, body) {
			t.Fatalf("%s: %q is not in the sample", name, swap[0])
		}
		if _, err := ParseManifest(wrap(manifestFormat, bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ParseManifest(wrap(manifestFormat, body)); err != nil {
		t.Errorf("the sample itself: %v", err)
	}
	if _, err := ParseManifest(wrap(sidecarFormat, body)); err == nil {
		t.Error("another format's file: accepted")
	}
}

func sampleFiles() Manifest {
	return Manifest{
		Job: "j", Epoch: 2, Step: 120, ChunkBytes: Align, Shards: []ShardInfo{}, Metrics: map[string]float64{"loss": 0.5},
		Files: []FileInfo{{Name: "a/b.pt", Bytes: 5000, Chunks: make([]Sum, 2)}, {Name: "empty"}},
	}
}

// TestHostileFileNames refuses names that lead out of the checkpoint's directory, or to its own manifest.
func TestHostileFileNames(t *testing.T) {
	t.Parallel()
	good := sampleFiles()
	if _, err := good.Encode(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"", ".", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "a/./b", `..\x`, "a\x00b", "\xff", manifestName, strings.Repeat("x", MaxPathBytes+1),
	} {
		m := sampleFiles()
		m.Files[0].Name = name
		if _, err := m.Encode(); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
	for what, bend := range map[string]func(*Manifest){
		"twice":        func(m *Manifest) { m.Files[1].Name = m.Files[0].Name },
		"order":        func(m *Manifest) { m.Files[0], m.Files[1] = m.Files[1], m.Files[0] },
		"size":         func(m *Manifest) { m.Files[0].Bytes = 1 << 62 },
		"negative":     func(m *Manifest) { m.Files[0].Bytes = -1 },
		"no files":     func(m *Manifest) { m.Files = nil },
		"both":         func(m *Manifest) { m.WorldSize, m.Shards = 1, sampleManifest().Shards[:1] },
		"shards alone": func(m *Manifest) { m.Shards = sampleManifest().Shards },
		"not a number": func(m *Manifest) { m.Metrics["x"] = math.NaN() },
	} {
		m := sampleFiles()
		bend(&m)
		if _, err := m.Encode(); err == nil {
			t.Errorf("%s: was taken", what)
		}
	}
}
