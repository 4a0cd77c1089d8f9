package grpclink

import (
	"errors"
	"os"
	"syscall"

	"github.com/gangline/gangline/allreduce"
)

// payloadSource is a connection's end from which payloads are read.
type payloadSource interface {
	// begun says how many of a payload's n bytes have been read already, with what came before, and whether the others can be read straight to one
	// place. TLS cannot: it copies what it gives, so that little would be gained, and a fault would end the process.
	begun(n int) (ahead int, straight bool)
	read(p []byte) (int, error)
	// readStraight reads with no copy made by this process. An interrupt ends it with os.ErrDeadlineExceeded, memory that is gone with EFAULT; nothing is lost then.
	readStraight(p []byte) (int, error)
	// rearm undoes an interrupt.
	rearm() error
}

// readPayload reads a frame's payload to where it shall lie.
func readPayload(from payloadSource, to *slot, f *allreduce.Frame) error {
	ahead, placed := placeIn(from, to.landing, f)
	got, read := 0, from.read
	if placed {
		read = from.readStraight
		if ahead > 0 { // came with the head
			got, _ = from.read(f.Begin(ahead)) // it is there
			to.landing.Came(got)
		}
	}
	for got < len(f.Data) {
		n, err := read(f.Data[got:])
		got += n
		if to.landing != nil && n > 0 {
			to.landing.Came(n)
		}
		if placed && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.EFAULT)) { // see interrupt; nothing can be written there
			placed, read, err = false, from.read, landed(from, to.landing)
			f.Displace()
		}
		if err != nil && got < len(f.Data) {
			if placed {
				to.landing.Landed()
			}
			return err
		}
	}
	if placed {
		return landed(from, to.landing)
	}
	return nil
}

// placeIn gives a frame the memory that its payload shall lie in, and reports whether that is the landing's.
func placeIn(from payloadSource, landing allreduce.Landing, f *allreduce.Frame) (ahead int, placed bool) {
	if landing == nil || len(f.Data) == 0 || !allreduce.WireIsNative() {
		return 0, false
	}
	ahead, straight := from.begun(len(f.Data))
	if !straight {
		return 0, false
	}
	memory := landing.Place(&f.Header, len(f.Data))
	if memory != nil {
		f.Place(memory)
	}
	return ahead, memory != nil
}

// landed lets go of the memory that a payload was read to, and undoes an interrupt.
func landed(from payloadSource, landing allreduce.Landing) error {
	if landing.Landed() {
		return from.rearm()
	}
	return nil
}
