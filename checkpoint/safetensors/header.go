package safetensors

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/gangline/gangline/checkpoint"
)

// MaxHeaderBytes is the largest header that is read; the reference reader has the same limit.
const MaxHeaderBytes = 100_000_000

// ErrFormat says that a file is no whole safetensors file.
var ErrFormat = errors.New("not a safetensors file")

// lengthBytes is how long the header's length is, at the file's beginning.
const lengthBytes = 8

// metadataKey is the header's one key that is no tensor.
const metadataKey = "__metadata__"

// names gives each element type the name that safetensors has for it.
//
//nolint:gochecknoglobals // table, never written
var names = map[checkpoint.DType]string{
	checkpoint.Float64: "F64", checkpoint.Float32: "F32", checkpoint.Float16: "F16", checkpoint.BFloat16: "BF16",
	checkpoint.Float8E4: "F8_E4M3", checkpoint.Float8E5: "F8_E5M2",
	checkpoint.Int64: "I64", checkpoint.Int32: "I32", checkpoint.Int16: "I16", checkpoint.Int8: "I8",
	checkpoint.Uint64: "U64", checkpoint.Uint32: "U32", checkpoint.Uint16: "U16", checkpoint.Uint8: "U8", checkpoint.Bool: "BOOL",
}

// Tensor is one tensor of a file. Begin and End are byte offsets from the end of the header.
type Tensor struct {
	Name       string
	DType      checkpoint.DType
	Shape      []int64
	Begin, End int64
}

// Header is what a file says before the tensors' bytes.
type Header struct {
	Tensors  []Tensor // by Begin
	Metadata map[string]string
	// DataAt is where the tensors' bytes begin in the file.
	DataAt int64
}

type entry struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// ReadHeader reads and checks the header of a file of size bytes: the tensors lie one after another, without gaps, up to the file's end.
// Errors wrap ErrFormat, or are the reader's.
func ReadHeader(r io.ReaderAt, size int64) (Header, error) {
	var length [lengthBytes]byte
	if size < lengthBytes {
		return Header{}, fmt.Errorf("%w: it has %d bytes", ErrFormat, size)
	}
	if _, err := r.ReadAt(length[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return Header{}, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > MaxHeaderBytes || n > uint64(size-lengthBytes) {
		return Header{}, fmt.Errorf("%w: its header would have %d bytes, the file has %d, and at most %d are allowed", ErrFormat, n, size, MaxHeaderBytes)
	}
	raw := make([]byte, n)
	if _, err := r.ReadAt(raw, lengthBytes); err != nil && !errors.Is(err, io.EOF) {
		return Header{}, err
	}
	h, err := parse(raw)
	if err != nil {
		return Header{}, err
	}
	h.DataAt = lengthBytes + int64(n)
	return h, h.check(size - h.DataAt)
}

func parse(raw []byte) (Header, error) {
	var all map[string]json.RawMessage
	if !utf8.Valid(raw) {
		return Header{}, fmt.Errorf("%w: its header is not UTF-8", ErrFormat)
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return Header{}, fmt.Errorf("%w: its header: %w", ErrFormat, err)
	}
	h := Header{Tensors: make([]Tensor, 0, len(all))}
	for name, value := range all { // sorted below
		if name == metadataKey {
			if err := json.Unmarshal(value, &h.Metadata); err != nil {
				return Header{}, fmt.Errorf("%w: its metadata: %w", ErrFormat, err)
			}
			continue
		}
		var e entry
		if err := json.Unmarshal(value, &e); err != nil {
			return Header{}, fmt.Errorf("%w: tensor %q: %w", ErrFormat, name, err)
		}
		t := Tensor{Name: name, Shape: e.Shape, Begin: e.Offsets[0], End: e.Offsets[1]}
		for d, n := range names { // at most one matches
			if n == e.DType {
				t.DType = d
			}
		}
		if t.DType == "" {
			return Header{}, fmt.Errorf("%w: tensor %q has type %q, which is not known here", ErrFormat, name, e.DType)
		}
		h.Tensors = append(h.Tensors, t)
	}
	slices.SortFunc(h.Tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
	})
	return h, nil
}

// check says whether the tensors fill bytes exactly.
func (h *Header) check(bytes int64) error {
	at := int64(0)
	for _, t := range h.Tensors {
		n, ok := elements(t.Shape)
		if !ok || n > math.MaxInt64/t.DType.Size() {
			return fmt.Errorf("%w: tensor %q: shape %v is negative or too large", ErrFormat, t.Name, t.Shape)
		}
		if t.Begin != at || t.End < t.Begin || t.End-t.Begin != n*t.DType.Size() || t.End > bytes {
			return fmt.Errorf("%w: tensor %q, %s%v, is said to lie at %d to %d; want it at %d, with %d bytes, in %d",
				ErrFormat, t.Name, t.DType, t.Shape, t.Begin, t.End, at, n*t.DType.Size(), bytes)
		}
		at = t.End
	}
	if at != bytes {
		return fmt.Errorf("%w: its tensors have %d bytes, the file holds %d", ErrFormat, at, bytes)
	}
	return nil
}

// encode gives the file's beginning, up to the tensors' bytes, which begin at a multiple of 8.
func (h *Header) encode() ([]byte, error) {
	all := make(map[string]any, len(h.Tensors)+1)
	for _, t := range h.Tensors {
		shape := t.Shape
		if shape == nil {
			shape = []int64{}
		}
		all[t.Name] = entry{DType: names[t.DType], Shape: shape, Offsets: [2]int64{t.Begin, t.End}}
	}
	if len(all) != len(h.Tensors) || all[metadataKey] != nil {
		return nil, fmt.Errorf("%w: two tensors have one name, or one is named %s", ErrFormat, metadataKey)
	}
	if len(h.Metadata) > 0 {
		all[metadataKey] = h.Metadata
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	for len(raw)%lengthBytes != 0 {
		raw = append(raw, ' ')
	}
	if len(raw) > MaxHeaderBytes {
		return nil, fmt.Errorf("the header would have %d bytes, at most %d are allowed: export fewer tensors", len(raw), MaxHeaderBytes)
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(raw))), raw...), nil
}

// elements gives how many elements a shape has, and false if that overflows or a dimension is negative.
func elements(shape []int64) (int64, bool) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || d != 0 && n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}
