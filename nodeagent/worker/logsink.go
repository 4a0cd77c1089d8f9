package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Stream is one of a worker's two outputs.
type Stream string

// The streams of a worker.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// segmentName is the file that starts at byte base of a stream. The offset is in the name, so that a reader needs no
// second file to place what it reads.
func segmentName(s Stream, base int64) string {
	return string(s) + "." + strconv.FormatInt(base, 10) + ".log"
}

// segments lists the start offsets of the stream's files, ascending.
func segments(dir string, s Stream) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var bases []int64
	for _, e := range entries {
		mid, ok := strings.CutPrefix(e.Name(), string(s)+".")
		if !ok {
			continue
		}
		if mid, ok = strings.CutSuffix(mid, ".log"); !ok {
			continue
		}
		if base, err := strconv.ParseInt(mid, 10, 64); err == nil && base >= 0 {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases, nil
}

// logSink writes one stream to disk. It never fails and never waits for space: what the disk refuses is dropped,
// counted, and said in the log once the disk takes bytes again. Its first file is made by the first byte: most
// workers never write to stderr, and a new inode is what a launch pays for most.
type logSink struct {
	dir    string
	stream Stream
	max    int64 // bytes of one segment

	mu      sync.Mutex // one pump writes; the end of the supervisor flushes; status reads the count
	file    *os.File   // nil before the first byte, and until the disk lets us create it
	base    int64      // offset of the current segment's first byte
	size    int64      // bytes in the current segment
	prev    int64      // offset of the older segment, -1 when there is none
	linked  bool       // stdout.log points to the current segment
	midLine bool
	pending int64 // bytes dropped since the last marker
	why     error // the last refusal
	dropped int64 // bytes dropped in all
}

func newLogSink(dir string, stream Stream, maxBytes int64) *logSink {
	return &logSink{dir: dir, stream: stream, max: maxBytes, prev: -1}
}

// write takes all of p.
func (s *logSink) write(p []byte) {
	if len(p) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mark() || !s.room(int64(len(p))) {
		s.drop(int64(len(p)))
		return
	}
	n := s.put(p)
	s.drop(int64(len(p) - n))
}

// flush tries to say what was dropped; call it when space may be back.
func (s *logSink) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark()
}

// close ends the sink; later writes count as dropped.
func (s *logSink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		_ = s.file.Close() // logs are not fsynced: losing their end in a power cut is accepted
		s.file = nil
	}
	s.dir = ""
}

func (s *logSink) droppedBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

func (s *logSink) drop(n int64) {
	s.pending += n
	s.dropped += n
}

// mark writes the marker line if bytes are missing here; false if the disk still refuses.
func (s *logSink) mark() bool {
	if s.pending == 0 {
		return true
	}
	line := fmt.Sprintf("[gangline: %d bytes of output were dropped here: %v]\n", s.pending, s.why)
	if s.midLine {
		line = "\n" + line
	}
	if !s.room(int64(len(line))) || s.put([]byte(line)) < len(line) {
		return false
	}
	s.pending = 0
	return true
}

// put writes to the current segment and returns how many bytes the disk took.
func (s *logSink) put(p []byte) int {
	n, err := s.file.Write(p)
	if err != nil {
		s.why = err
	}
	if n > 0 {
		s.size += int64(n)
		s.midLine = p[n-1] != '\n'
	}
	return n
}

// room makes sure that there is a file to write n bytes to, rotating when the current one would grow over max.
func (s *logSink) room(n int64) bool {
	if s.dir == "" {
		return false
	}
	if s.file != nil && (s.size == 0 || s.size+n <= s.max) {
		return true
	}
	if s.file != nil {
		_ = s.file.Close() // see close
		s.file = nil
		if s.prev >= 0 {
			// The older one goes first: on a full disk its room is what the new one needs.
			_ = os.Remove(filepath.Join(s.dir, segmentName(s.stream, s.prev)))
		}
		s.prev = s.base
		s.base += s.size
		s.size = 0
		s.linked = false
	}
	return s.open()
}

// open creates the current segment and points the plain name at it.
func (s *logSink) open() bool {
	name := segmentName(s.stream, s.base)
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		s.why = err
		return false
	}
	s.file = f
	plain := filepath.Join(s.dir, string(s.stream)+".log")
	if s.base == 0 {
		s.linked = os.Symlink(name, plain) == nil
	}
	if !s.linked {
		tmp := plain + ".tmp"
		_ = os.Remove(tmp)
		s.linked = os.Symlink(name, tmp) == nil && os.Rename(tmp, plain) == nil
	}
	return true
}
