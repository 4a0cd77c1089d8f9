package trace

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bounds of what a file may say. They keep virtual times far from overflow.
const (
	MaxSeconds = 1e9 // of a length, or from a trace's start: thirty years
	MaxCPUs    = 1 << 20
	MaxMiB     = 1 << 30
	mebibyte   = 1 << 20
	milli      = 1000
)

// table reads a file of separated columns with a heading, and finds columns by name.
type table struct {
	*text
	rows  rowReader
	width int                // columns of the heading
	named map[string]*column // those of the heading, and what else was asked for
	row   []string
	texts names
	opt   *Options // of a native format
}

// column is what a table's rows have under one name. It may be kept for as long as the table is read.
type column struct {
	of   *table
	name string
	at   int // in a row; -1: the file has no such column
}

// rowReader splits a file into rows of columns: commas, or bars.
type rowReader interface {
	// Read returns the next row, which is good until the next call; io.EOF, a csv.ParseError, or what ends the file.
	Read() ([]string, error)
	// FieldPos is where a column of the row begins, from line 1 and column 1.
	FieldPos(field int) (line, column int)
}

// openTable opens a file. The columns named must be there; others may be.
func openTable(path string, columns ...string) (*table, error) {
	f, err := openText(path, nil)
	if err != nil {
		return nil, err
	}
	t, err := newTable(f, columns...)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

func newTable(f *text, columns ...string) (*table, error) {
	return headed(f, &commas{from: f}, columns...)
}

// headed reads the heading of a table. Its names are kept without the spaces around them.
func headed(f *text, rows rowReader, columns ...string) (*table, error) {
	t := &table{text: f, rows: rows}
	heading, err := t.rows.Read()
	if err != nil {
		return nil, fmt.Errorf("%s: has no heading: the first line must name its columns (%s): %w", t.name, strings.Join(columns, ","), err)
	}
	t.head(heading)
	return t, t.need(columns)
}

// head says what the columns of the rows are called.
func (t *table) head(heading []string) {
	t.width, t.named = len(heading), map[string]*column{}
	for i, c := range heading {
		c = strings.TrimSpace(c)
		t.named[c] = &column{t, c, i}
	}
}

// column finds a column by its name, which takes a look-up: who reads many rows keeps it.
func (t *table) column(name string) *column {
	c := t.named[name]
	if c == nil {
		c = &column{t, name, -1}
		t.named[name] = c
	}
	return c
}

// has tells whether the file has a column.
func (t *table) has(name string) bool { return t.column(name).at >= 0 }

// need returns an error that names all columns that are missing.
func (t *table) need(columns []string) error {
	var missing []string
	for _, c := range columns {
		if !t.has(c) {
			missing = append(missing, c)
		}
	}
	if missing != nil {
		return fmt.Errorf("%s: line 1: has no column %s: needed are %s", t.name, strings.Join(missing, ", "), strings.Join(columns, ","))
	}
	return nil
}

// next reads a row. Errors are io.EOF, a badRow, or what makes the rest unreadable.
func (t *table) next() error {
	t.begin()
	row, err := t.rows.Read()
	if err != nil {
		return t.misread(row, err)
	}
	t.row = row
	return nil
}

// misread says what is wrong with a row, or the file.
func (t *table) misread(row []string, err error) error {
	var shape *csv.ParseError
	switch {
	case errors.As(err, &shape) && errors.Is(err, csv.ErrFieldCount):
		return badRow{fmt.Errorf("%s:%d: has %d columns, the heading has %d", t.name, shape.Line, len(row), t.width)}
	case errors.As(err, &shape):
		return badRow{fmt.Errorf("%s:%d:%d: %w: a quote belongs around a whole value, and twice within it", t.name, shape.StartLine, shape.Column, shape.Err)}
	}
	return err // of the file, which says where
}

// value is the text of a column, or "" if the file has no such column.
func (t *table) value(name string) string { return t.column(name).text() }

// text is what the row has in the column, or "" if the file has no such column.
func (c *column) text() string {
	if c.at < 0 {
		return ""
	}
	return c.of.row[c.at]
}

// wrong says what is wrong with a value, and where it is.
func (c *column) wrong(want string) error {
	t := c.of
	if c.at < 0 {
		return badRow{fmt.Errorf("%s: there is no column %s, and needed is %s", t.name, c.name, want)}
	}
	line, col := t.rows.FieldPos(c.at)
	return badRow{fmt.Errorf("%s:%d:%d: column %s is %q, not %s", t.name, line, col, c.name, brief(c.text()), want)}
}

// brief is the beginning of a value that may be anything.
func brief(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// whole reads a whole number in 0..most; an empty value is 0.
func (c *column) whole(most int64) (int64, error) {
	s := c.text()
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s) // which is twice as fast as ParseInt
	if err != nil || n < 0 || int64(n) > most {
		return 0, c.wrong(fmt.Sprintf("a whole number in 0..%d", most))
	}
	return int64(n), nil
}

// scaled reads a number in 0..most and returns it in units of 1/scale, rounded up; an empty value is 0.
func (c *column) scaled(most float64, scale int64) (int64, error) {
	s := c.text()
	if s == "" {
		return 0, nil
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || !(x >= 0 && x <= most) {
		return 0, c.wrong(fmt.Sprintf("a number in 0..%g", most))
	}
	return int64(math.Ceil(x*float64(scale) - 1e-6)), nil
}

// seconds reads a time of at least least; an empty value is refused.
func (c *column) seconds(least float64) (time.Duration, error) {
	d, ok := parseSeconds(c.text(), least)
	if !ok {
		return 0, c.wrong(fmt.Sprintf("a number of seconds in %g..%g", least, float64(MaxSeconds)))
	}
	return d, nil
}

func parseSeconds(s string, least float64) (time.Duration, bool) {
	if n, err := strconv.Atoi(s); err == nil && float64(n) >= least && n <= MaxSeconds {
		return time.Duration(n) * time.Second, true
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || !(x >= least && x <= MaxSeconds) {
		return 0, false
	}
	return time.Duration(math.Round(x * float64(time.Second))), true
}
