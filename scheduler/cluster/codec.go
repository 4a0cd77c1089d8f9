package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// The encoding is deterministic: equal values have equal bytes, whatever
// machine or release of Go wrote them. Each type has one method, code, which
// both writes and reads it, so that the two cannot drift apart. Numbers are
// varints, strings and lists are led by their length. A new field goes to the
// end of its type, guarded by the coder's version.

// ErrCorrupt means that bytes are not what the encoder writes.
var ErrCorrupt = errors.New("corrupt encoding")

// coder writes values to buf, or reads them from it.
type coder struct {
	buf     []byte
	reading bool
	version uint32
	err     error
}

func (c *coder) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
		c.buf = nil
	}
}

// put writes a number.
func (c *coder) put(x uint64) {
	if x < 0x80 { // as nearly all are
		c.buf = append(c.buf, byte(x))
		return
	}
	c.buf = binary.AppendUvarint(c.buf, x)
}

// putSigned writes a number that may be below 0.
func (c *coder) putSigned(x int64) { c.put(uint64(x)<<1 ^ uint64(x>>63)) }

// get reads a number.
func (c *coder) get() uint64 {
	x, n := binary.Uvarint(c.buf)
	if n <= 0 {
		c.fail("a number is cut off")
		return 0
	}
	c.buf = c.buf[n:]
	return x
}

func (c *coder) getSigned() int64 {
	u := c.get()
	return int64(u>>1) ^ -int64(u&1)
}

func (c *coder) u64(v *uint64) {
	if !c.reading {
		c.put(*v)
		return
	}
	*v = c.get()
}

func (c *coder) i64(v *int64) { codeInt(c, v) }

func (c *coder) i32(v *int32) { codeInt(c, v) }

func (c *coder) f64(v *float64) {
	bits := math.Float64bits(*v)
	if !c.reading {
		c.buf = binary.BigEndian.AppendUint64(c.buf, bits)
		return
	}
	if len(c.buf) < 8 {
		c.fail("a float is cut off")
		return
	}
	*v, c.buf = math.Float64frombits(binary.BigEndian.Uint64(c.buf)), c.buf[8:]
}

func (c *coder) bool(v *bool) {
	if !c.reading {
		u := uint64(0)
		if *v {
			u = 1
		}
		c.put(u)
		return
	}
	u := c.get()
	if u > 1 {
		c.fail("truth value %d", u)
	}
	*v = u == 1
}

func (c *coder) str(v *string) {
	if !c.reading {
		c.putText(*v)
		return
	}
	n := c.get()
	if n > uint64(len(c.buf)) {
		c.fail("a string of %d bytes is cut off", n)
		return
	}
	*v, c.buf = string(c.buf[:n]), c.buf[n:]
}

func (c *coder) putText(s string) {
	c.put(uint64(len(s)))
	if s != "" {
		c.buf = append(c.buf, s...)
	}
}

func (c *coder) dur(v *time.Duration) { codeInt(c, v) }

// codeInt codes any signed integer type.
func codeInt[T ~int32 | ~int64](c *coder, v *T) {
	if !c.reading {
		c.putSigned(int64(*v))
		return
	}
	x := c.getSigned()
	*v = T(x)
	if int64(*v) != x {
		c.fail("number %d does not fit", x)
	}
}

// codeSmall codes a number of one or two bytes as i32 does, of which older releases had some as int32.
func codeSmall[T ~int8 | ~int16](c *coder, v *T) {
	if !c.reading {
		c.putSigned(int64(*v))
		return
	}
	x := int32(0)
	c.i32(&x)
	*v = small[T](x)
}

// small is a number, or the one next to it that fits.
func small[T ~int8 | ~int16](x int32) T {
	if n := T(x); int32(n) == x {
		return n
	}
	most := T(1)
	for most<<1 > 0 {
		most = most<<1 | 1
	}
	return T(min(max(x, -int32(most)-1), int32(most)))
}

// codeText codes a string that few have, and which is nil for those that have none.
func codeText(c *coder, v **string) {
	switch {
	case c.reading:
		text := ""
		c.str(&text)
		if *v = nil; text != "" {
			*v = &text
		}
	case *v == nil:
		c.put(0)
	default:
		c.putText(**v)
	}
}

// codeUint codes any unsigned integer type.
func codeUint[T ~uint8 | ~uint32 | ~uint64](c *coder, v *T) {
	if !c.reading {
		c.put(uint64(*v))
		return
	}
	x := c.get()
	*v = T(x)
	if uint64(*v) != x {
		c.fail("number %d does not fit", x)
	}
}

// codeList codes a list. An empty list is read back as nil. Each element takes
// at least one byte, which bounds what a corrupt length can allocate.
func codeList[T any](c *coder, v *[]T, elem func(*coder, *T)) {
	n := uint64(len(*v))
	c.u64(&n)
	if c.reading {
		if n > uint64(len(c.buf)) {
			c.fail("a list of %d elements is cut off", n)
			return
		}
		*v = nil
		if n > 0 {
			*v = make([]T, n)
		}
	}
	for i := range *v {
		elem(c, &(*v)[i])
		if c.err != nil {
			return
		}
	}
}

// codePtr codes a value that may be absent.
func codePtr[T any](c *coder, v **T, elem func(*coder, *T)) {
	has := *v != nil
	c.bool(&has)
	if c.err != nil {
		return
	}
	if !has {
		if c.reading {
			*v = nil
		}
		return
	}
	if c.reading {
		*v = new(T)
	}
	elem(c, *v)
}

func codeStr(c *coder, s *string) { c.str(s) }

// AppendCommand appends a command's bytes to buf.
func AppendCommand(buf []byte, cmd Command) []byte {
	c := coder{buf: append(buf, byte(cmd.kind())), version: Version}
	cmd.code(&c)
	return c.buf
}

// UnknownCommandError means that the log holds a kind of command that this
// release does not have. The server must stop applying; it must never skip.
type UnknownCommandError struct{ Kind Kind }

func (e *UnknownCommandError) Error() string {
	return fmt.Sprintf("the log holds a command of kind %d, which this release does not know: run the release that the other servers run", e.Kind)
}

// DecodeCommand reads the bytes of AppendCommand. Version is that of the entry
// which holds them. It returns ErrCorrupt or *UnknownCommandError.
func DecodeCommand(b []byte, version uint32) (Command, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: empty command", ErrCorrupt)
	}
	cmd := newCommand(Kind(b[0]))
	if cmd == nil || version > Version {
		return nil, &UnknownCommandError{Kind: Kind(b[0])}
	}
	c := coder{buf: b[1:], reading: true, version: version}
	cmd.code(&c)
	if c.err == nil && len(c.buf) > 0 {
		c.fail("%d bytes after a command of kind %d", len(c.buf), b[0])
	}
	if c.err != nil {
		return nil, c.err
	}
	return cmd, nil
}

func newCommand(k Kind) Command {
	switch k {
	case KindInit:
		return &Init{}
	case KindSubmitJob:
		return &SubmitJob{}
	case KindCancelJob:
		return &CancelJob{}
	case KindStartJob:
		return &StartJob{}
	case KindExplainJob:
		return &ExplainJob{}
	case KindRegisterNode:
		return &RegisterNode{}
	case KindLoseNode:
		return &LoseNode{}
	case KindReportWorkers:
		return &ReportWorkers{}
	case KindEvictJob:
		return &EvictJob{}
	case KindRecordCheckpoint:
		return &RecordCheckpoint{}
	case KindForgetJobs:
		return &ForgetJobs{}
	case KindForgetNode:
		return &ForgetNode{}
	case KindSetPolicy:
		return &SetPolicy{}
	case KindDrainNode:
		return &DrainNode{}
	case KindKeepNodes:
		return &KeepNodes{}
	case KindExplainJobs:
		return &ExplainJobs{}
	default:
		return nil
	}
}
