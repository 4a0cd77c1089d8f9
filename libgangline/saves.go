//go:build cgo

package main

// #include "gangline.h"
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/libgangline/session"
)

// storedTypes are the element types of checkpoints, by their numbers in gangline.h.
var storedTypes = map[C.int32_t]checkpoint.DType{ //nolint:gochecknoglobals // a table
	C.GANGLINE_FLOAT32:       checkpoint.Float32,
	C.GANGLINE_FLOAT64:       checkpoint.Float64,
	C.GANGLINE_FLOAT16:       checkpoint.Float16,
	C.GANGLINE_BFLOAT16:      checkpoint.BFloat16,
	C.GANGLINE_INT8:          checkpoint.Int8,
	C.GANGLINE_INT32:         checkpoint.Int32,
	C.GANGLINE_INT64:         checkpoint.Int64,
	C.GANGLINE_INT16:         checkpoint.Int16,
	C.GANGLINE_UINT8:         checkpoint.Uint8,
	C.GANGLINE_UINT16:        checkpoint.Uint16,
	C.GANGLINE_UINT32:        checkpoint.Uint32,
	C.GANGLINE_UINT64:        checkpoint.Uint64,
	C.GANGLINE_BOOL:          checkpoint.Bool,
	C.GANGLINE_FLOAT8_E4M3FN: checkpoint.Float8E4,
	C.GANGLINE_FLOAT8_E5M2:   checkpoint.Float8E5,
}

//export goSaveBegin
func goSaveBegin(checkpoints, step C.int64_t, save *C.int64_t) C.int32_t {
	return enter(func() error {
		if save == nil {
			return errPlace("save begin")
		}
		handle, err := process.BeginSave(int64(checkpoints), int64(step))
		*save = C.int64_t(handle)
		return err
	})
}

//export goSaveTensor
func goSaveTensor(save C.int64_t, name *C.char, typ, dims C.int32_t, global, offset, shape *C.int64_t, data unsafe.Pointer) C.int32_t {
	return enter(func() error {
		s, err := process.Save(int64(save))
		if err != nil {
			return err
		}
		t := checkpoint.Tensor{Name: text(name), DType: storedTypes[typ]}
		if t.DType == "" {
			return session.ErrArgument(fmt.Sprintf("tensor %q: element type %d is none", t.Name, typ))
		}
		for _, to := range []struct {
			from *C.int64_t
			to   *[]int64
		}{{global, &t.Global}, {offset, &t.Offset}, {shape, &t.Shape}} {
			if *to.to, err = numbers(dims, to.from); err != nil {
				return err
			}
		}
		size := t.DType.Size()
		for _, n := range t.Shape {
			if n < 0 || n > 0 && size > 1<<48/n {
				return session.ErrArgument(fmt.Sprintf("tensor %q: shape %v is none", t.Name, t.Shape))
			}
			size *= n
		}
		if t.Data, err = bytesOf(data, C.int64_t(size)); err != nil {
			return err
		}
		s.Add(t)
		return nil
	})
}

//export goSaveText
func goSaveText(save C.int64_t, key, value *C.char) C.int32_t {
	return enter(func() error {
		s, err := process.Save(int64(save))
		if err == nil {
			s.SetText(text(key), text(value))
		}
		return err
	})
}

//export goSaveMetric
func goSaveMetric(save C.int64_t, name *C.char, value C.double) C.int32_t {
	return enter(func() error {
		s, err := process.Save(int64(save))
		if err == nil {
			s.SetMetric(text(name), float64(value))
		}
		return err
	})
}

//export goSaveWrite
func goSaveWrite(save C.int64_t) C.int32_t {
	return enter(func() error {
		s, err := process.Save(int64(save))
		if err != nil {
			return err
		}
		return s.Write()
	})
}

//export goSaveCommit
func goSaveCommit(save C.int64_t) C.int32_t {
	return enter(func() error {
		s, err := process.Save(int64(save))
		if err != nil {
			return err
		}
		return s.Commit()
	})
}

//export goSaveLater
func goSaveLater(save C.int64_t, stall *C.int64_t) C.int32_t {
	return enter(func() error {
		s, err := process.Save(int64(save))
		if err != nil {
			return err
		}
		took, err := s.Later()
		if stall != nil {
			*stall = C.int64_t(took.Microseconds())
		}
		return err
	})
}

//export goSaveEnd
func goSaveEnd(save C.int64_t) C.int32_t {
	return enter(func() error { return process.EndSave(int64(save)) })
}
