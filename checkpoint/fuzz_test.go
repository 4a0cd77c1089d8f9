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
	f.Add(good)
	f.Add(body)
	f.Add([]byte(`{"format":"gangline-checkpoint","version":2,"xxh3_128":"00","body":{}}`))
	f.Add(bytes.ReplaceAll(body, []byte(`"shape":[2,4]`), []byte(`"shape":[9223372036854775807,4]`)))
	f.Add(bytes.ReplaceAll(body, []byte(`shard-0000-of-0002.glck`), []byte(`../../../etc/passwd`)))
	files := sampleFiles()
	if body, err = json.Marshal(files); err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add(bytes.ReplaceAll(body, []byte(`a/b.pt`), []byte(`../b.pt`)))
	f.Add(bytes.ReplaceAll(body, []byte(`"bytes":5000`), []byte(`"bytes":9223372036854775807`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range [][]byte{data, wrap(manifestFormat, FormatVersion, sumOf(data), data)} {
			m, err := ParseManifest(file)
			if err != nil {
				continue
			}
			for _, e := range m.FileNames() {
				if !fs.ValidPath(e.Name) || e.Name == "." || e.Name == manifestName || e.Size < 0 {
					t.Fatalf("a manifest leads to %q", e.Name)
				}
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
		if _, err := ParseManifest(wrap(manifestFormat, FormatVersion, sumOf(bad), bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ParseManifest(wrap(manifestFormat, FormatVersion, sumOf(body), body)); err != nil {
		t.Errorf("the sample itself: %v", err)
	}
	if _, err := ParseManifest(wrap(sidecarFormat, FormatVersion, sumOf(body), body)); err == nil {
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
