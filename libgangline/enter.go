//go:build cgo

package main

/*
#include "gangline.h"

void gangline_set_error(int32_t code, int32_t rank, const char *text, int64_t length);
*/
import "C"

import (
	"fmt"
	"runtime/debug"
	"strings"
	"unsafe"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/libgangline/session"
)

// process is all that this process has open.
var process session.Session //nolint:gochecknoglobals // a library in C has no place of its own for it

func main() {} // a shared library has none

// enter makes a call and turns its error, or its panic, into a code and the thread's last error.
func enter(call func() error) (code C.int32_t) {
	defer func() {
		if p := recover(); p != nil {
			code = report(&session.PanicError{Value: p, Stack: debug.Stack()})
		}
	}()
	if err := call(); err != nil {
		return report(err)
	}
	return C.GANGLINE_OK
}

// report keeps an error as the thread's last. A callback from C runs on the thread that called.
func report(err error) C.int32_t {
	code, text := C.int32_t(session.CodeOf(err)), strings.ToValidUTF8(err.Error(), "?")
	rank := C.int32_t(session.RankOf(err)) //nolint:gosec // below 65536
	if text == "" {
		text = "unknown error"
	}
	C.gangline_set_error(code, rank, (*C.char)(unsafe.Pointer(unsafe.StringData(text))), C.int64_t(len(text)))
	return code
}

// text gives a string of C, and "" for NULL.
func text(s *C.char) string {
	if s == nil {
		return ""
	}
	return C.GoString(s)
}

// put writes text and a final NUL into room bytes at dst; what does not fit is cut off, if cut is allowed.
func put(dst *C.char, room C.int32_t, text string, cut bool) error {
	if dst == nil || room <= 0 {
		if cut {
			return nil
		}
		return session.ErrRoom(len(text)+1, int(room))
	}
	if len(text) >= int(room) {
		if !cut {
			return session.ErrRoom(len(text)+1, int(room))
		}
		text = strings.ToValidUTF8(text[:room-1], "")
	}
	buf := unsafe.Slice((*byte)(unsafe.Pointer(dst)), int(room))
	buf[copy(buf, text)] = 0
	return nil
}

// types are the element types of groups, by their numbers in gangline.h.
func typeOf(number C.int32_t) (allreduce.Type, error) {
	switch number {
	case C.GANGLINE_FLOAT32:
		return allreduce.Float32, nil
	case C.GANGLINE_FLOAT64:
		return allreduce.Float64, nil
	case C.GANGLINE_FLOAT16:
		return allreduce.Float16, nil
	case C.GANGLINE_BFLOAT16:
		return allreduce.BFloat16, nil
	case C.GANGLINE_INT8:
		return allreduce.Int8, nil
	case C.GANGLINE_INT32:
		return allreduce.Int32, nil
	case C.GANGLINE_INT64:
		return allreduce.Int64, nil
	default:
		return 0, session.ErrArgument(fmt.Sprintf("element type %d: a group can not combine it", number))
	}
}

func opOf(number C.int32_t) (allreduce.Op, error) {
	switch number {
	case C.GANGLINE_SUM:
		return allreduce.Sum, nil
	case C.GANGLINE_PRODUCT:
		return allreduce.Product, nil
	case C.GANGLINE_MIN:
		return allreduce.Min, nil
	case C.GANGLINE_MAX:
		return allreduce.Max, nil
	case C.GANGLINE_MEAN:
		return allreduce.Mean, nil
	default:
		return 0, session.ErrArgument(fmt.Sprintf("operation %d is none: allowed are sum, product, min, max, mean", number))
	}
}

// vectorOf sees memory of C as a vector.
func vectorOf(data unsafe.Pointer, count C.int64_t, number C.int32_t) (allreduce.Vector, error) {
	typ, err := typeOf(number)
	if err != nil {
		return allreduce.Vector{}, err
	}
	if count < 0 || count > 1<<48 {
		return allreduce.Vector{}, session.ErrArgument(fmt.Sprintf("%d elements are no length", count))
	}
	if count > 0 && data == nil {
		return allreduce.Vector{}, session.ErrArgument(fmt.Sprintf("%d elements at NULL", count))
	}
	return allreduce.Bits(typ, unsafe.Slice((*byte)(data), int(count)*typ.Size())), nil
}
