package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	// Waits between two looks at a log that has nothing new: a line shows up soon, an idle log costs 4 looks a second.
	logPollMin = 10 * time.Millisecond
	logPollMax = 250 * time.Millisecond
)

// LogReader reads one stream of one worker across rotations. It is for one goroutine; cancel the context given to
// Manager.ReadLog to interrupt a waiting Read.
type LogReader struct {
	ctx    context.Context //nolint:containedctx // the reader is the call: it lives as long as the context
	dir    string
	stream Stream
	follow bool
	exited <-chan struct{} // closed when the worker has exited: the files are final

	file   *os.File
	base   int64
	offset int64
}

// openLog positions a reader. offset counts the stream's written bytes from 0; negative counts back from the present
// end. An offset that was rotated away moves to the oldest byte there is.
func openLog(ctx context.Context, w *worker, stream Stream, offset int64, follow bool) (*LogReader, error) {
	if stream != Stdout && stream != Stderr {
		return nil, fmt.Errorf("read log of worker %v: stream %q is unknown: use stdout or stderr", w.spec.Key, stream)
	}
	r := &LogReader{ctx: ctx, dir: w.dir, stream: stream, follow: follow, exited: w.exited}
	if offset < 0 {
		bases, err := segments(r.dir, stream)
		if err != nil {
			return nil, fmt.Errorf("read log of worker %v: %w", w.spec.Key, err)
		}
		if len(bases) > 0 {
			last := bases[len(bases)-1]
			info, err := os.Stat(filepath.Join(r.dir, segmentName(stream, last)))
			if err != nil {
				return nil, fmt.Errorf("read log of worker %v: %w", w.spec.Key, err)
			}
			offset = max(0, last+info.Size()+offset)
		}
	}
	r.offset = max(0, offset)
	return r, nil
}

// Offset is the place of the next byte that Read returns. It jumps forward over bytes that were rotated away.
func (r *LogReader) Offset() int64 { return r.offset }

// Close releases the file. Call it from the goroutine that reads.
func (r *LogReader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// Read returns the next bytes. Without follow it returns io.EOF at the present end; with follow it waits for more
// until the worker has exited and everything is read, or the context ends (then its error).
func (r *LogReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for wait := logPollMin; ; wait = min(wait*2, logPollMax) {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		final := !r.follow || isClosed(r.exited) // asked before reading: what is written before the exit is not missed
		n, err := r.next(p)
		if n > 0 || err != nil {
			return n, err
		}
		if final {
			return 0, io.EOF
		}
		select {
		case <-r.ctx.Done():
		case <-r.exited:
		case <-time.After(wait):
		}
	}
}

// next reads what is there now, moving through segments; 0 and no error when there is nothing more yet.
func (r *LogReader) next(p []byte) (int, error) {
	for {
		bases, err := segments(r.dir, r.stream)
		if errors.Is(err, os.ErrNotExist) {
			bases = nil // collected meanwhile: what is open is all that there is
		} else if err != nil {
			return 0, fmt.Errorf("read log: %w", err)
		}
		if r.file != nil {
			// The list came first: if it shows a later segment, this one is final and is read to its end.
			n, err := r.file.Read(p)
			if n > 0 {
				r.offset += int64(n)
				return n, nil
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, fmt.Errorf("read log: %w", err)
			}
		}
		moved, err := r.advance(bases)
		if err != nil || !moved {
			return 0, err
		}
	}
}

// advance opens the segment that holds r.offset, or the oldest one after it; false if the open one is the last.
func (r *LogReader) advance(bases []int64) (bool, error) {
	target := int64(-1)
	for _, b := range bases {
		if r.file != nil && b <= r.base {
			continue
		}
		if target < 0 || b <= r.offset {
			target = b
		}
	}
	if target < 0 {
		return false, nil
	}
	f, err := os.Open(filepath.Join(r.dir, segmentName(r.stream, target)))
	if errors.Is(err, os.ErrNotExist) {
		return true, nil // rotated away between list and open: list again
	}
	if err != nil {
		return false, fmt.Errorf("read log: %w", err)
	}
	_ = r.Close() // opened for reading only
	r.file, r.base = f, target
	r.offset = max(r.offset, target)
	if _, err := f.Seek(r.offset-target, io.SeekStart); err != nil {
		return false, fmt.Errorf("read log: %w", err)
	}
	return true, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
