package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
)

// Difference says how one tensor or file differs between two checkpoints.
type Difference struct {
	Name string
	// Kind is one of the Diff constants.
	Kind DiffKind
	// Changed is how many elements of a tensor, or chunks of a file, differ, and Of how many there are; of DiffContent only.
	Changed, Of int64
	// MaxAbs is the largest distance between two elements of a tensor of floating point, NaN if one of them is
	// NaN and the other is not; of DiffContent only.
	MaxAbs float64
}

// DiffKind says what is different.
type DiffKind string

// The kinds of differences.
const (
	DiffOnlyA   DiffKind = "only in the first"
	DiffOnlyB   DiffKind = "only in the second"
	DiffForm    DiffKind = "another type or shape"
	DiffSize    DiffKind = "another size" // of a file
	DiffContent DiffKind = "other content"
)

// comparePieceBytes is how much of each tensor Compare holds at once.
const comparePieceBytes = 8 << 20

// Compare lists how b differs from a, by name, and how many tensors or files are the same in both. Tensors are read in full
// and verified, whatever world sizes wrote them; files are compared by their checksums. Errors: of Read; ErrInvalid if one holds
// tensors and the other files, or their files were summed in chunks of different sizes.
func Compare(ctx context.Context, s *Store, a, b Manifest) (diffs []Difference, same int, err error) {
	if (a.WorldSize == 0) != (b.WorldSize == 0) || a.WorldSize == 0 && a.ChunkBytes != b.ChunkBytes {
		return nil, 0, errors.Join(ErrInvalid, errors.New("one holds tensors and the other a program's own files, or they were summed in different chunks: they can not be compared"))
	}
	if a.WorldSize == 0 {
		diffs, same = compareFiles(&a, &b)
		return diffs, same, nil
	}
	ra, rb := s.NewReader(a), s.NewReader(b)
	defer func() { err = errors.Join(err, ra.Close(), rb.Close()) }()
	names := map[string]bool{}
	for _, n := range slices.Concat(a.TensorNames(), b.TensorNames()) {
		names[n] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		typeA, shapeA, inA := a.Tensor(name)
		typeB, shapeB, inB := b.Tensor(name)
		d := Difference{Name: name}
		switch {
		case !inB:
			d.Kind = DiffOnlyA
		case !inA:
			d.Kind = DiffOnlyB
		case typeA != typeB || !slices.Equal(shapeA, shapeB):
			d.Kind = DiffForm
		default:
			if d, err = compareTensor(ctx, ra, rb, name, typeA, shapeA); err != nil {
				return nil, 0, err
			}
			if d.Changed == 0 {
				same++
				continue
			}
		}
		diffs = append(diffs, d)
	}
	return diffs, same, nil
}

// compareTensor reads one tensor of both, piece by piece.
func compareTensor(ctx context.Context, ra, rb *Reader, name string, dtype DType, shape []int64) (Difference, error) {
	size := dtype.Size()
	n, _ := volume(shape)
	d := Difference{Name: name, Kind: DiffContent, Of: n}
	buf := make([]byte, 2*min(n*size, comparePieceBytes))
	err := Pieces(shape, comparePieceBytes/size, func(offset, box []int64) error {
		count, _ := volume(box)
		x, y := buf[:count*size], buf[len(buf)/2:][:count*size]
		if err := ra.ReadRaw(ctx, name, offset, box, x); err != nil {
			return err
		}
		if err := rb.ReadRaw(ctx, name, offset, box, y); err != nil {
			return err
		}
		if bytes.Equal(x, y) {
			return nil
		}
		for at := int64(0); at < count*size; at += size {
			ex, ey := x[at:at+size], y[at:at+size]
			if bytes.Equal(ex, ey) {
				continue
			}
			d.Changed++
			if gap := math.Abs(number(dtype, ex) - number(dtype, ey)); gap > d.MaxAbs || math.IsNaN(gap) {
				d.MaxAbs = gap
			}
		}
		return nil
	})
	return d, err
}

// number reads one element of floating point; other types give 0.
func number(dtype DType, b []byte) float64 {
	le := binary.LittleEndian
	switch dtype {
	case Float64:
		return math.Float64frombits(le.Uint64(b))
	case Float32:
		return float64(math.Float32frombits(le.Uint32(b)))
	case BFloat16:
		return float64(math.Float32frombits(uint32(le.Uint16(b)) << 16))
	case Float16:
		return half(le.Uint16(b))
	case Float8E4, Float8E5, Int64, Int32, Int16, Int8, Uint64, Uint32, Uint16, Uint8, Bool:
	}
	return 0
}

// half reads IEEE 754 binary16.
func half(h uint16) float64 {
	sign, exp, frac := 1-2*float64(h>>15), int(h>>10&0x1f), float64(h&0x3ff)
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 0x1f:
		if frac != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

// compareFiles compares by name, size and checksums.
func compareFiles(a, b *Manifest) (diffs []Difference, same int) {
	inB := map[string]*FileInfo{}
	for i := range b.Files {
		inB[b.Files[i].Name] = &b.Files[i]
	}
	for i := range a.Files {
		x := &a.Files[i]
		y := inB[x.Name]
		delete(inB, x.Name)
		switch {
		case y == nil:
			diffs = append(diffs, Difference{Name: x.Name, Kind: DiffOnlyA})
		case x.Bytes != y.Bytes:
			diffs = append(diffs, Difference{Name: x.Name, Kind: DiffSize})
		case !slices.Equal(x.Chunks, y.Chunks):
			d := Difference{Name: x.Name, Kind: DiffContent, Of: int64(len(x.Chunks))}
			for j := range x.Chunks {
				if x.Chunks[j] != y.Chunks[j] {
					d.Changed++
				}
			}
			diffs = append(diffs, d)
		default:
			same++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(inB)) {
		diffs = append(diffs, Difference{Name: name, Kind: DiffOnlyB})
	}
	slices.SortFunc(diffs, func(x, y Difference) int { return bytes.Compare([]byte(x.Name), []byte(y.Name)) })
	return diffs, same
}
