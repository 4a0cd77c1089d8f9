package checkpoint

import (
	"encoding/hex"
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

// FormatVersion is the highest version of the manifest and sidecar that this package writes and reads. It reads all from 1 on: version 2 added files,
// metrics, the time of the commit, and element types; version 3 references to earlier checkpoints' files, and encodings; version 4 is
// version 3 authenticated with a key. What has no key is written as version 3, which releases before this one read too.
const FormatVersion = 4

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
	// AuthKey is the Key.ID that its file names as the one it is authenticated with; "": none. Only who has that key can tell whether it is so:
	// a Store that has it has checked it. Not in the body.
	AuthKey string `json:"-"`
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

// ParseManifest decodes and checks a manifest file, but for its authentication, which needs the key: see Store.Load. Its Dir is empty.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	e, err := unseal(manifestFormat, data, &m)
	if err != nil {
		return Manifest{}, err
	}
	if err := m.check(); err != nil {
		return Manifest{}, err
	}
	m.AuthKey = e.Key
	return m, nil
}

// Encode gives the manifest as the bytes of a file that is not authenticated.
func (m *Manifest) Encode() ([]byte, error) { return m.encode(nil) }

// encode gives the manifest as its file's bytes, authenticated with a key unless that is nil.
func (m *Manifest) encode(k *Key) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	return seal(manifestFormat, m, k)
}

func parseSidecar(data []byte) (sidecar, error) {
	var c sidecar
	if _, err := unseal(sidecarFormat, data, &c); err != nil {
		return sidecar{}, err
	}
	return c, c.check()
}
