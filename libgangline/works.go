//go:build cgo

package main

// #include "gangline.h"
import "C"

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/libgangline/session"
)

//export goStartAllReduce
func goStartAllReduce(group C.int64_t, data unsafe.Pointer, count C.int64_t, typ, op C.int32_t, o *C.gangline_all_reduce_options, work *C.int64_t) C.int32_t {
	return enter(func() error {
		if work == nil {
			return errPlace("start all-reduce")
		}
		g, err := process.Group(int64(group))
		if err != nil {
			return err
		}
		c, err := callOf(C.GANGLINE_ALL_REDUCE, data, count, typ, op, 0)
		if err != nil {
			return err
		}
		tag := int64(-1)
		if o != nil {
			if c.Data, err = inForm(c, o); err != nil {
				return err
			}
			tag = int64(o.tag)
		}
		var w *session.Work
		if tag < 0 {
			w, err = g.Start(c)
		} else {
			w, err = g.StartTagged(uint64(tag), c)
		}
		if err != nil {
			return err
		}
		*work = C.int64_t(process.Start(w))
		return nil
	})
}

// inForm gives a vector the form that options ask for.
func inForm(c session.Call, o *C.gangline_all_reduce_options) (allreduce.Vector, error) {
	v := c.Data
	if uintptr(o.size) < unsafe.Sizeof(*o) {
		return v, session.ErrArgument(fmt.Sprintf("start all-reduce: options have size %d: set it to sizeof(gangline_all_reduce_options)", o.size))
	}
	if o.wire > C.GANGLINE_WIRE_EXACT && (v.Type() != allreduce.Float32 || c.Op != allreduce.Sum && c.Op != allreduce.Mean) {
		return v, session.ErrArgument(fmt.Sprintf("%v of %v over a form of fewer bytes: only sums and means of float32 can", c.Op, v.Type()))
	}
	switch o.wire {
	case C.GANGLINE_WIRE_GROUP:
	case C.GANGLINE_WIRE_EXACT:
		v = v.Over(allreduce.WireExact)
	case C.GANGLINE_WIRE_BF16:
		v = v.Over(allreduce.WireBFloat16)
	case C.GANGLINE_WIRE_INT8:
		v = v.Over(allreduce.WireInt8)
	default:
		return v, session.ErrArgument(fmt.Sprintf("form %d on the wire is none", o.wire))
	}
	if o.feedback == 0 {
		return v, nil
	}
	f, err := process.Feedback(int64(o.feedback))
	return v.With(f), err
}

//export goSend
func goSend(group C.int64_t, to C.int32_t, data unsafe.Pointer, count C.int64_t, typ C.int32_t) C.int32_t {
	return message(group, data, count, typ, func(g *session.Group, v allreduce.Vector) error { return g.Send(int(to), v) })
}

//export goRecv
func goRecv(group C.int64_t, from C.int32_t, data unsafe.Pointer, count C.int64_t, typ C.int32_t) C.int32_t {
	return message(group, data, count, typ, func(g *session.Group, v allreduce.Vector) error { return g.Recv(int(from), v) })
}

func message(group C.int64_t, data unsafe.Pointer, count C.int64_t, typ C.int32_t, move func(*session.Group, allreduce.Vector) error) C.int32_t {
	return enter(func() error {
		g, err := process.Group(int64(group))
		if err != nil {
			return err
		}
		v, err := vectorOf(data, count, typ)
		if err != nil {
			return err
		}
		return move(g, v)
	})
}

//export goFeedbackNew
func goFeedbackNew(count C.int64_t, feedback *C.int64_t) C.int32_t {
	return enter(func() error {
		if feedback == nil {
			return errPlace("feedback new")
		}
		handle, err := process.NewFeedback(int(count))
		*feedback = C.int64_t(handle)
		return err
	})
}

//export goFeedbackFree
func goFeedbackFree(feedback C.int64_t) C.int32_t {
	return enter(func() error { return process.FreeFeedback(int64(feedback)) })
}

//export goWait
func goWait(work, milliseconds C.int64_t) C.int32_t {
	return enter(func() error { return process.Wait(int64(work), time.Duration(milliseconds)*time.Millisecond) })
}

//export goTest
func goTest(work C.int64_t, done *C.int32_t) C.int32_t {
	return enter(func() error {
		w, err := process.Work(int64(work))
		if err != nil {
			return err
		}
		if done == nil {
			return errPlace("test")
		}
		*done = 0
		if w.Done() {
			*done = 1
		}
		return nil
	})
}

//export goCancel
func goCancel(work C.int64_t) C.int32_t {
	return enter(func() error {
		w, err := process.Work(int64(work))
		if err == nil {
			w.Cancel()
		}
		return err
	})
}
