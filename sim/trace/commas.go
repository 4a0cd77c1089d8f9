package trace

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"
)

// commas reads the rows of a CSV file, as encoding/csv does. Traces are long and have no quotes: lines without any are
// taken many at a time and split at their commas, which is several times as fast, and the first one with a quote is left
// to encoding/csv, with all that follows.
type commas struct {
	from   *text
	block  string // whole lines without quotes that are yet to be split; only the last one of the file may have no end
	row    []string
	width  int // columns of the first row; 0: not read
	line   int // number of the last one that was read here
	quoted *csv.Reader
}

// Read implements rowReader.
func (c *commas) Read() ([]string, error) {
	for c.quoted == nil {
		if c.block == "" {
			if err := c.fill(); err != nil {
				return nil, err
			}
			continue
		}
		c.split()
		if c.line++; len(c.row) == 1 && c.row[0] == "" {
			continue // an empty line
		}
		if c.width == 0 {
			c.width = len(c.row)
		}
		if len(c.row) != c.width {
			return c.row, &csv.ParseError{StartLine: c.line, Line: c.line, Column: 1, Err: csv.ErrFieldCount}
		}
		return c.row, nil
	}
	row, err := c.quoted.Read()
	var shape *csv.ParseError
	if errors.As(err, &shape) {
		shape.StartLine += c.line
		shape.Line += c.line
	}
	return row, err
}

// fill reads lines, or leaves what follows to encoding/csv: a line with a quote, or one that is longer than the buffer.
func (c *commas) fill() error {
	for n := 1; ; n++ {
		n = max(n, c.from.Buffered())
		head, err := c.from.Peek(n)
		part := head
		if q := bytes.IndexByte(head, '"'); q >= 0 {
			part = head[:q]
		}
		whole := bytes.LastIndexByte(part, '\n') + 1
		switch {
		case whole > 0:
		case len(part) < len(head), errors.Is(err, bufio.ErrBufferFull):
			c.quoted = csv.NewReader(c.from.Reader)
			c.quoted.ReuseRecord, c.quoted.FieldsPerRecord = true, c.width
			return nil
		case errors.Is(err, io.EOF) && len(head) > 0:
			whole = len(head)
		case err != nil:
			return err
		default:
			continue // more of the line
		}
		c.block = string(head[:whole])
		_, err = c.from.Discard(whole)
		return err
	}
}

// split takes a line off the block as a row.
func (c *commas) split() {
	s, from, end := c.block, 0, len(c.block)
	c.row = c.row[:0]
	for i := range len(s) {
		b := s[i]
		if b > ',' { // as nearly all are
			continue
		}
		if b == ',' {
			c.row = append(c.row, s[from:i])
			from = i + 1
		} else if b == '\n' {
			end = i
			break
		}
	}
	c.block = s[min(end+1, len(s)):]
	c.row = append(c.row, strings.TrimSuffix(s[from:end], "\r"))
}

// FieldPos implements rowReader.
func (c *commas) FieldPos(field int) (line, column int) {
	if c.quoted != nil {
		line, column = c.quoted.FieldPos(field)
		return c.line + line, column
	}
	column = 1
	for _, v := range c.row[:field] {
		column += len(v) + 1
	}
	return c.line, column
}
