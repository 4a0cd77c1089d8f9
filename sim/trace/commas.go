package trace

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"
)

// commas reads the rows of a CSV file, as encoding/csv does. Traces are long and have no quotes: a line without any is
// split at its commas, which takes half the time, and the first one with a quote is left to encoding/csv, with all that
// follows.
type commas struct {
	from   *text
	row    []string
	width  int // columns of the first row; 0: not read
	line   int // number of the last one that was read here
	quoted *csv.Reader
}

// Read implements rowReader.
func (c *commas) Read() ([]string, error) {
	for c.quoted == nil {
		line, err := c.from.ReadSlice('\n')
		if bytes.IndexByte(line, '"') >= 0 || errors.Is(err, bufio.ErrBufferFull) {
			c.leave(line)
			break
		}
		if err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)) {
			return nil, err
		}
		c.line++
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\r'})
		if len(line) > 0 {
			return c.split(string(line))
		}
	}
	row, err := c.quoted.Read()
	var shape *csv.ParseError
	if errors.As(err, &shape) {
		shape.StartLine += c.line
		shape.Line += c.line
	}
	return row, err
}

// leave lets encoding/csv go on from a line whose beginning was read.
func (c *commas) leave(line []byte) {
	c.quoted = csv.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(line)), c.from))
	c.quoted.ReuseRecord, c.quoted.FieldsPerRecord = true, c.width
}

func (c *commas) split(line string) ([]string, error) {
	c.row = c.row[:0]
	for {
		i := strings.IndexByte(line, ',')
		if i < 0 {
			break
		}
		c.row = append(c.row, line[:i])
		line = line[i+1:]
	}
	c.row = append(c.row, line)
	if c.width == 0 {
		c.width = len(c.row)
	}
	if len(c.row) != c.width {
		return c.row, &csv.ParseError{StartLine: c.line, Line: c.line, Column: 1, Err: csv.ErrFieldCount}
	}
	return c.row, nil
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
