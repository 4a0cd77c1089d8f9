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

//export goCheckpointsOpen
func goCheckpointsOpen(o *C.gangline_checkpoints_options, checkpoints *C.int64_t) C.int32_t {
	return enter(func() error {
		if checkpoints == nil {
			return errPlace("checkpoints open")
		}
		var r session.CheckpointsRequest
		if o != nil {
			if uintptr(o.size) < unsafe.Sizeof(*o) {
				return session.ErrArgument(fmt.Sprintf("checkpoints open: options have size %d: set it to sizeof(gangline_checkpoints_options)", o.size))
			}
			r = session.CheckpointsRequest{
				Dir: text(o.dir), Job: text(o.job), Epoch: uint64(o.epoch), Keep: int(o.keep), Rank: int(o.rank), WorldSize: int(o.world_size),
			}
		}
		handle, err := process.OpenCheckpoints(r)
		*checkpoints = C.int64_t(handle)
		return err
	})
}

func errPlace(call string) error { return session.ErrArgument(call + ": no place for the answer") }

//export goCheckpointsClose
func goCheckpointsClose(checkpoints C.int64_t) C.int32_t {
	return enter(func() error { return process.CloseCheckpoints(int64(checkpoints)) })
}

//export goCheckpointsEpoch
func goCheckpointsEpoch(checkpoints C.int64_t, epoch *C.uint64_t) C.int32_t {
	return enter(func() error {
		c, err := process.Checkpoints(int64(checkpoints))
		if err != nil || epoch == nil {
			return orPlace(err, "checkpoints epoch")
		}
		*epoch = C.uint64_t(c.Epoch())
		return nil
	})
}

// orPlace is an error, or that there is no place for the answer.
func orPlace(err error, call string) error {
	if err != nil {
		return err
	}
	return errPlace(call)
}

//export goCheckpointsCollect
func goCheckpointsCollect(checkpoints C.int64_t) C.int32_t {
	return enter(func() error {
		c, err := process.Checkpoints(int64(checkpoints))
		if err != nil {
			return err
		}
		return c.Collect()
	})
}

//export goCheckpointsSaved
func goCheckpointsSaved(checkpoints C.int64_t, wait C.int32_t, step *C.int64_t) C.int32_t {
	return enter(func() error {
		c, err := process.Checkpoints(int64(checkpoints))
		if err != nil || step == nil {
			return orPlace(err, "checkpoints saved")
		}
		ask := c.Saved
		if wait != 0 {
			ask = c.Settle
		}
		saved, err := ask()
		*step = C.int64_t(saved)
		return err
	})
}

//export goCheckpointLatest
func goCheckpointLatest(checkpoints C.int64_t, opened *C.int64_t) C.int32_t {
	return enter(func() error {
		if opened == nil {
			return errPlace("checkpoint latest")
		}
		handle, err := process.LatestCheckpoint(int64(checkpoints))
		*opened = C.int64_t(handle)
		return err
	})
}

//export goCheckpointOpen
func goCheckpointOpen(checkpoints C.int64_t, epoch, step C.uint64_t, opened *C.int64_t) C.int32_t {
	return enter(func() error {
		if opened == nil {
			return errPlace("checkpoint open")
		}
		handle, err := process.OpenCheckpoint(int64(checkpoints), checkpoint.Ref{Epoch: uint64(epoch), Step: uint64(step)})
		*opened = C.int64_t(handle)
		return err
	})
}

//export goCheckpointClose
func goCheckpointClose(opened C.int64_t) C.int32_t {
	return enter(func() error { return process.CloseCheckpoint(int64(opened)) })
}

//export goCheckpointDescribe
func goCheckpointDescribe(opened C.int64_t, json *C.char, room C.int64_t, need *C.int64_t) C.int32_t {
	return enter(func() error {
		c, err := process.Checkpoint(int64(opened))
		if err != nil || need == nil {
			return orPlace(err, "checkpoint describe")
		}
		told, err := c.Describe()
		if err != nil {
			return err
		}
		*need = C.int64_t(len(told) + 1)
		if json == nil || room < *need {
			return nil
		}
		buf := unsafe.Slice((*byte)(unsafe.Pointer(json)), len(told)+1)
		buf[copy(buf, told)] = 0
		return nil
	})
}

//export goCheckpointRead
func goCheckpointRead(opened C.int64_t, name *C.char, dims C.int32_t, offset, shape *C.int64_t, data unsafe.Pointer, bytes C.int64_t) C.int32_t {
	return enter(func() error {
		c, err := process.Checkpoint(int64(opened))
		if err != nil {
			return err
		}
		dst, err := bytesOf(data, bytes)
		if err != nil {
			return err
		}
		if offset == nil && shape == nil {
			return c.Read(text(name), nil, nil, dst)
		}
		at, err := numbers(dims, offset)
		if err != nil {
			return err
		}
		size, err := numbers(dims, shape)
		if err != nil {
			return err
		}
		return c.Read(text(name), at, size, dst)
	})
}

// bytesOf sees memory of C as bytes.
func bytesOf(data unsafe.Pointer, count C.int64_t) ([]byte, error) {
	if count < 0 || count > 1<<48 || count > 0 && data == nil {
		return nil, session.ErrArgument(fmt.Sprintf("%d bytes at %p are no memory", count, data))
	}
	return unsafe.Slice((*byte)(data), int(count)), nil
}

// numbers copies a shape or an offset.
func numbers(dims C.int32_t, at *C.int64_t) ([]int64, error) {
	if dims < 0 || dims > checkpoint.MaxDims || dims > 0 && at == nil {
		return nil, session.ErrArgument(fmt.Sprintf("a tensor of %d dimensions: 0 to %d are allowed, with offset and shape", dims, checkpoint.MaxDims))
	}
	all := make([]int64, dims)
	for i, n := range unsafe.Slice(at, int(dims)) {
		all[i] = int64(n)
	}
	return all, nil
}
