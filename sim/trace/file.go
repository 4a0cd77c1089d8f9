package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip" // takes two thirds of the standard library's time
)

// maxRow is the longest row of a file, in bytes: a file without line ends, or with a quote that is never closed, must
// not fill the memory.
const maxRow = 16 << 20

const (
	gzipMagic = "\x1f\x8b"
	bom       = "\xef\xbb\xbf" // what Windows puts before UTF-8
)

// packed are compressions that are told by name instead of as malformed rows.
var packed = []struct{ magic, name string }{ //nolint:gochecknoglobals // table
	{"BZh", "bzip2"}, {"\xfd7zXZ\x00", "xz"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"PK\x03\x04", "zip"},
}

// text is an open file as text: unpacked if it is gzip, without a byte order mark.
type text struct {
	*bufio.Reader
	name  string
	lines *lines
	file  io.Closer
}

// counted adds up the bytes that are read.
type counted struct {
	io.Reader
	read *int64
}

// Read implements io.Reader.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.read += int64(n)
	return n, err
}

// openText opens a file, gzipped or not. What is read of it is added to a counter, if there is one.
func openText(path string, read *int64) (*text, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the user names the file
	if err != nil {
		return nil, fmt.Errorf("read a trace: %w", err)
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, errors.Join(fmt.Errorf("read a trace: %s is a directory: name a file in it", path), f.Close())
	}
	from := io.Reader(f)
	if read != nil {
		*read = 0
		from = counted{f, read}
	}
	t, err := newText(path, from)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.file = f
	return t, nil
}

func newText(name string, r io.Reader) (*text, error) {
	buf := bufio.NewReaderSize(r, 1<<16)
	l := &lines{from: buf, name: name}
	head, _ := buf.Peek(len(gzipMagic))
	if string(head) == gzipMagic {
		z, err := gzip.NewReader(buf)
		if err != nil {
			return nil, fmt.Errorf("%s: not a whole gzip file: %w", name, err)
		}
		l.from = z
	}
	buf = bufio.NewReaderSize(l, 1<<16)
	head, err := buf.Peek(6)
	for _, p := range packed {
		if bytes.HasPrefix(head, []byte(p.magic)) {
			return nil, fmt.Errorf("%s: is compressed with %s: unpack it, or pack it with gzip", name, p.name)
		}
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case len(head) == 0:
		return nil, fmt.Errorf("%s: is empty", name)
	case bytes.HasPrefix(head, []byte(bom)):
		_, _ = buf.Discard(len(bom)) // it was peeked
	}
	return &text{Reader: buf, name: name, lines: l}, nil
}

// Close closes the file.
func (t *text) Close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// begin tells that a row begins.
func (t *text) begin() { t.lines.row = 0 }

// lines passes on what it reads, and says clearly what is wrong with a file that was cut off or has no rows.
type lines struct {
	from io.Reader
	name string
	row  int // bytes read since a row began, roughly
	line int // lines that have ended
}

// Read implements io.Reader.
func (l *lines) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	l.line += bytes.Count(p[:n], []byte{'\n'})
	l.row += n
	switch {
	case l.row > maxRow:
		return n, fmt.Errorf("%s: before line %d: a row of more than %d MiB: a quote is not closed, or this is not a file of rows", l.name, l.line+1, maxRow>>20)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%s:%d: the gzip file was cut off here: get the whole of it", l.name, l.line+1)
	case err != nil && !errors.Is(err, io.EOF):
		return n, fmt.Errorf("%s:%d: %w", l.name, l.line+1, err)
	}
	return n, err
}
