package checkpoint

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/zeebo/xxh3"
)

// Limits of the format. They bound what a damaged or hostile file can make a reader allocate.
const (
	// MaxWorldSize is the most ranks of one checkpoint: far beyond one job of 100,000 GPUs with 8 per process.
	MaxWorldSize = 1 << 14
	// MaxDims is the most dimensions of a tensor; training frameworks stop at 5 to 8.
	MaxDims = 16
	// MaxTensors is the most tensors in one shard; the largest published models have some thousands.
	MaxTensors = 1 << 16
	// MaxNameBytes is the longest name of a tensor, of a job, or of a Meta key.
	MaxNameBytes = 512
	// MaxMetaBytes is the most that the keys and values of one Meta map may sum up to. It is for words such as a
	// learning rate or a data position; larger state belongs into a Uint8 tensor.
	MaxMetaBytes = 64 << 10
	// MaxManifestBytes is the largest manifest: checksums of about 6 TiB at the default chunk size.
	MaxManifestBytes = 64 << 20
	// DefaultChunkBytes is the unit of checksums and of writes: large enough for a disk's full rate.
	DefaultChunkBytes = 4 << 20
	// MaxChunkBytes bounds the buffer that a reader needs for one chunk.
	MaxChunkBytes = 64 << 20
)

// FormatVersion is the version of the manifest and sidecar that this package writes. It reads all from 1 on: version 2 added files,
// metrics, the time of the commit, and element types; version 3 references to earlier checkpoints' files, and encodings.
const FormatVersion = 3

// Sum is an XXH3-128 checksum. It finds damage, not malice.
type Sum [16]byte

func sumOf(b []byte) Sum { return xxh3.Hash128(b).Bytes() }

// String gives the checksum in hexadecimal.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText gives the checksum in hexadecimal.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (s *Sum) UnmarshalText(text []byte) error {
	if len(text) != 2*len(s) {
		return fmt.Errorf("checksum has %d digits, want %d", len(text), 2*len(s))
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// Manifest describes a complete checkpoint: its presence is the commit. It is read-only once returned. A checkpoint holds
// either the shards of WorldSize ranks, or, with WorldSize 0, the files of a program with a format of its own.
type Manifest struct {
	Job        string             `json:"job"`
	Epoch      uint64             `json:"epoch"`
	Step       uint64             `json:"step"`
	WorldSize  int                `json:"world_size"`
	ChunkBytes int64              `json:"chunk_bytes"`
	Meta       map[string]string  `json:"meta,omitempty"`
	Metrics    map[string]float64 `json:"metrics,omitempty"`       // by which the best are kept, such as a loss
	SavedMS    int64              `json:"saved_unix_ms,omitempty"` // when it was committed, by the committer's clock; 0: not told
	Shards     []ShardInfo        `json:"shards"`                  // by rank
	Files      []FileInfo         `json:"files,omitempty"`         // by name

	// Dir is the directory it was found in, below the store's own. Not stored.
	Dir string `json:"-"`
	// Local says that some of its shards are only on nodes' own disks so far: then Latest does not give it. Not stored.
	Local bool `json:"-"`
}

// ShardInfo describes one rank's file.
type ShardInfo struct {
	Rank    int               `json:"rank"`
	File    string            `json:"file"`
	Bytes   int64             `json:"bytes"`
	Chunks  []Sum             `json:"xxh3_128"` // of each chunk of the file, the last one possibly shorter
	Tensors []TensorInfo      `json:"tensors,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"` // this rank's own, such as its data position
	// Encoded says how the file is stored; nil: byte for byte.
	Encoded *Encoding `json:"encoded,omitempty"`
	// Origins are files of earlier checkpoints that hold some of the tensors.
	Origins []Origin `json:"origins,omitempty"`
}

// TensorInfo says where one rank's box of a tensor lies. Offset and Shape are in elements of the tensor
// of shape Global; FileOffset is in bytes from the start of the file (of what it stands for, if it is encoded): the shard's own, or, with From, Origins[From-1].
type TensorInfo struct {
	Name       string  `json:"name"`
	DType      DType   `json:"dtype"`
	Global     []int64 `json:"global"`
	Offset     []int64 `json:"offset"`
	Shape      []int64 `json:"shape"`
	FileOffset int64   `json:"file_offset"`
	From       int     `json:"from,omitempty"`
	// Base, from 1, says that the file holds the difference (exclusive or) to the bytes at BaseOffset of Origins[Base-1]; of bfloat16 alone.
	Base       int   `json:"base,omitempty"`
	BaseOffset int64 `json:"base_offset,omitempty"`
	// Sum is of the box's bytes, nil where it was not made: by it a later process sees that the tensor has not changed.
	Sum *Sum `json:"xxh3_128,omitempty"`
}

// Ref gives the checkpoint's epoch and step.
func (m *Manifest) Ref() Ref { return Ref{Epoch: m.Epoch, Step: m.Step} }

// Bytes gives the size of all its own files together, without the manifest; see ReferredBytes for what it refers to.
func (m *Manifest) Bytes() int64 {
	n := int64(0)
	for i := range m.Shards {
		n += m.Shards[i].Bytes
	}
	for i := range m.Files {
		n += m.Files[i].Bytes
	}
	return n
}

// TensorNames gives the names of all tensors, sorted.
func (m *Manifest) TensorNames() []string {
	names := map[string]struct{}{}
	for i := range m.Shards {
		for j := range m.Shards[i].Tensors {
			names[m.Shards[i].Tensors[j].Name] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Tensor gives the element type and the global shape of a tensor, and false if there is none of that name.
func (m *Manifest) Tensor(name string) (DType, []int64, bool) {
	for i := range m.Shards {
		for j := range m.Shards[i].Tensors {
			if t := &m.Shards[i].Tensors[j]; t.Name == name {
				return t.DType, t.Global, true
			}
		}
	}
	return "", nil, false
}

// sidecar is what a rank leaves beside its shard for the commit.
type sidecar struct {
	Job        string    `json:"job"`
	Epoch      uint64    `json:"epoch"`
	Step       uint64    `json:"step"`
	WorldSize  int       `json:"world_size"`
	ChunkBytes int64     `json:"chunk_bytes"`
	Shard      ShardInfo `json:"shard"`
	// As is how an image is to be stored once it is written; of an image's description alone.
	As *Encoding `json:"as,omitempty"`
}

const (
	manifestFormat = "gangline-checkpoint"
	sidecarFormat  = "gangline-shard"
)

// envelope is the outer object of both JSON files: the checksum is of the body's bytes as they stand.
type envelope struct {
	Format  string          `json:"format"`
	Version int             `json:"version"`
	Sum     Sum             `json:"xxh3_128"`
	Body    json.RawMessage `json:"body"`
}

// seal encodes a body in its envelope. It writes the outer object by hand, because the encoder would
// rewrite the body whose bytes have been summed.
func seal(format string, body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", format, err)
	}
	out := wrap(format, FormatVersion, sumOf(raw), raw)
	if len(out) > MaxManifestBytes {
		return nil, fmt.Errorf("%w: %s would have %d bytes, at most %d are allowed: use larger chunks or fewer tensors",
			ErrInvalid, format, len(out), MaxManifestBytes)
	}
	return out, nil
}

func wrap(format string, version int, sum Sum, body []byte) []byte {
	out := fmt.Appendf(nil, `{"format":%q,"version":%d,"xxh3_128":%q,"body":`, format, version, sum)
	return append(append(out, body...), '}', '\n')
}

// unseal checks an envelope and decodes its body.
func unseal(format string, data []byte, body any) error {
	e, ok := splitEnvelope(data)
	if !ok { // whatever it is, say it well
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
	}
	if e.Format != format {
		return fmt.Errorf("format is %q, want %q", e.Format, format)
	}
	if e.Version < 1 || e.Version > FormatVersion {
		return fmt.Errorf("format version is %d, this release reads 1 to %d: use the release that wrote it", e.Version, FormatVersion)
	}
	if got := sumOf(e.Body); got != e.Sum {
		return fmt.Errorf("checksum of the body is %s, the file says %s", got, e.Sum)
	}
	// JSON forgives a key's changed case, blanks, and more; a damaged file gets no such grace.
	if !bytes.Equal(data, wrap(format, e.Version, e.Sum, e.Body)) {
		return errors.New("the outer object is not as this package writes it")
	}
	if err := json.Unmarshal(e.Body, body); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

// splitEnvelope takes an envelope apart that has the form in which wrap writes it, without a look at the body: scanning a manifest of
// ten thousand tensors costs as much as decoding it. False: it has another form.
func splitEnvelope(data []byte) (e envelope, ok bool) {
	head, body, ok := bytes.Cut(data, []byte(`,"body":`))
	if !ok || len(body) < 2 || len(head) > MaxNameBytes {
		return e, false
	}
	if err := json.Unmarshal(append(slices.Clone(head), '}'), &e); err != nil {
		return e, false
	}
	e.Body = body[:len(body)-2]
	return e, true
}

// ParseManifest decodes and checks a manifest file. Its Dir is empty.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := unseal(manifestFormat, data, &m); err != nil {
		return Manifest{}, err
	}
	if err := m.check(); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// Encode gives the manifest as its file's bytes.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	return seal(manifestFormat, m)
}

func parseSidecar(data []byte) (sidecar, error) {
	var c sidecar
	if err := unseal(sidecarFormat, data, &c); err != nil {
		return sidecar{}, err
	}
	return c, c.check()
}
