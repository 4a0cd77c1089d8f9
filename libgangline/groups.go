//go:build cgo

package main

// #include "gangline.h"
import "C"

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/gangline/gangline/libgangline/session"
)

//export goJoin
func goJoin(options *C.gangline_join_options, group *C.int64_t) C.int32_t {
	return enter(func() error {
		if group == nil {
			return errPlace("join")
		}
		r, err := joinRequest(options)
		if err != nil {
			return err
		}
		handle, err := process.Join(r)
		*group = C.int64_t(handle)
		return err
	})
}

// joinRequest turns options into a request.
func joinRequest(o *C.gangline_join_options) (session.JoinRequest, error) {
	var r session.JoinRequest
	if o == nil {
		return r, nil
	}
	if uintptr(o.size) < unsafe.Sizeof(*o) {
		return r, session.ErrArgument(fmt.Sprintf("join: options have size %d: set it to sizeof(gangline_join_options)", o.size))
	}
	r = session.JoinRequest{
		Listen: text(o.listen), Path: text(o.path), Wire: text(o.wire),
		JoinTimeout:   time.Duration(o.join_timeout_ms) * time.Millisecond,
		DetectTimeout: time.Duration(o.detect_timeout_ms) * time.Millisecond,
		Listener:      int64(o.listener), Job: uint64(o.job), Epoch: uint64(o.epoch), Rank: int(o.rank),
		Formation: uint32(o.formation),
	}
	if o.peers == nil {
		return r, nil
	}
	if o.peer_count < 1 {
		return r, session.ErrArgument(fmt.Sprintf("join: %d peers", o.peer_count))
	}
	if o.secret != nil && o.secret_bytes > 0 {
		r.Secret = C.GoBytes(o.secret, o.secret_bytes)
	}
	for _, peer := range unsafe.Slice(o.peers, int(o.peer_count)) {
		r.Peers = append(r.Peers, text(peer))
	}
	return r, nil
}

//export goListen
func goListen(address *C.char, listener *C.int64_t, told *C.char, room C.int32_t) C.int32_t {
	return enter(func() error {
		if listener == nil {
			return errPlace("listen")
		}
		handle, at, err := process.Listen(text(address))
		if err != nil {
			return err
		}
		*listener = C.int64_t(handle)
		return put(told, room, at, false)
	})
}

//export goClose
func goClose(group C.int64_t) C.int32_t {
	return enter(func() error { return process.CloseGroup(int64(group)) })
}

//export goPlace
func goPlace(group C.int64_t, rank, world *C.int32_t) C.int32_t {
	return enter(func() error {
		g, err := process.Group(int64(group))
		if err != nil {
			return err
		}
		if rank != nil {
			*rank = C.int32_t(g.Rank()) //nolint:gosec // below 65536
		}
		if world != nil {
			*world = C.int32_t(g.WorldSize()) //nolint:gosec // at most 65536
		}
		return nil
	})
}

//export goFormation
func goFormation(group C.int64_t, formation, members *C.int32_t, room C.int32_t) C.int32_t {
	return enter(func() error {
		g, err := process.Group(int64(group))
		if err != nil || formation == nil {
			return orPlace(err, "formation")
		}
		n, ranks := g.Formation()
		*formation = C.int32_t(n) //nolint:gosec // small
		if members == nil || room < 0 {
			return nil
		}
		places := unsafe.Slice(members, int(room))
		for i := range min(len(ranks), len(places)) {
			places[i] = C.int32_t(ranks[i]) //nolint:gosec // below 65536
		}
		return nil
	})
}

// callOf puts a call together.
func callOf(kind C.int32_t, data unsafe.Pointer, count C.int64_t, typ, op, root C.int32_t) (session.Call, error) {
	c := session.Call{Kind: session.Kind(kind), Root: int(root)}
	var err error
	if c.Kind == session.Barrier {
		return c, nil
	}
	if c.Kind == session.AllReduce || c.Kind == session.ReduceScatter {
		if c.Op, err = opOf(op); err != nil {
			return c, err
		}
	}
	c.Data, err = vectorOf(data, count, typ)
	return c, err
}

//export goRun
func goRun(group C.int64_t, kind C.int32_t, data unsafe.Pointer, count C.int64_t, typ, op, root C.int32_t) C.int32_t {
	return enter(func() error {
		g, err := process.Group(int64(group))
		if err != nil {
			return err
		}
		c, err := callOf(kind, data, count, typ, op, root)
		if err != nil {
			return err
		}
		return g.Run(c)
	})
}

//export goStart
func goStart(group C.int64_t, kind C.int32_t, data unsafe.Pointer, count C.int64_t, typ, op, root C.int32_t, work *C.int64_t) C.int32_t {
	return enter(func() error {
		if work == nil {
			return errPlace("start")
		}
		g, err := process.Group(int64(group))
		if err != nil {
			return err
		}
		c, err := callOf(kind, data, count, typ, op, root)
		if err != nil {
			return err
		}
		w, err := g.Start(c)
		if err != nil {
			return err
		}
		*work = C.int64_t(process.Start(w))
		return nil
	})
}

//export goShare
func goShare(group, count C.int64_t, from, to *C.int64_t) C.int32_t {
	return enter(func() error {
		g, err := process.Group(int64(group))
		if err != nil {
			return err
		}
		if count < 0 || from == nil || to == nil {
			return session.ErrArgument("share: a negative length, or no place for the answer")
		}
		lo, hi := g.Share(int(count))
		*from, *to = C.int64_t(lo), C.int64_t(hi)
		return nil
	})
}

//export goAlloc
func goAlloc(group, bytes C.int64_t, data *unsafe.Pointer) C.int32_t {
	return enter(func() error {
		g, err := process.Group(int64(group))
		if err != nil {
			return err
		}
		if bytes < 0 || data == nil {
			return session.ErrArgument("alloc: a negative size, or no place for the memory's address")
		}
		*data, err = g.Alloc(int(bytes))
		return err
	})
}

//export goFree
func goFree(group C.int64_t, data unsafe.Pointer) C.int32_t {
	return enter(func() error { return process.Free(int64(group), data) })
}
