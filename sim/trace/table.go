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
	width int            // columns of the heading
	at    map[string]int // column by name
	asked []asked        // columns in the order in which they were asked for in the last rows
	turn  int            // of asked: the next one
	row   []string
	texts names
	opt   *Options // of a native format
}

// asked is a column that was asked for, and where it is; -1: the file has none.
type asked struct {
	column string
	at     int
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
	t := &table{text: f, rows: rows, at: map[string]int{}}
	heading, err := t.rows.Read()
	if err != nil {
		return nil, fmt.Errorf("%s: has no heading: the first line must name its columns (%s): %w", t.name, strings.Join(columns, ","), err)
	}
	t.width = len(heading)
	for i, c := range heading {
		t.at[strings.TrimSpace(c)] = i
	}
	return t, t.need(columns)
}

// need returns an error that names all columns that are missing.
func (t *table) need(columns []string) error {
	var missing []string
	for _, c := range columns {
		if _, ok := t.at[c]; !ok {
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
	t.turn = 0
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
func (t *table) value(column string) string {
	i := t.find(column)
	if i < 0 {
		return ""
	}
	return t.row[i]
}

// find returns where a column is, or -1. All rows are read in one way, so that the column is nearly always the one that
// was asked for at this turn of the row before.
func (t *table) find(column string) int {
	if t.turn == len(t.asked) {
		t.asked = append(t.asked, asked{})
	}
	next := &t.asked[t.turn]
	t.turn++
	if next.column != column || column == "" {
		next.column, next.at = column, -1
		if i, ok := t.at[column]; ok {
			next.at = i
		}
	}
	return next.at
}

// wrong says what is wrong with a value, and where it is.
func (t *table) wrong(column, want string) error {
	i, ok := t.at[column]
	if !ok {
		return badRow{fmt.Errorf("%s: there is no column %s, and needed is %s", t.name, column, want)}
	}
	line, col := t.rows.FieldPos(i)
	return badRow{fmt.Errorf("%s:%d:%d: column %s is %q, not %s", t.name, line, col, column, brief(t.row[i]), want)}
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
func (t *table) whole(column string, most int64) (int64, error) {
	s := t.value(column)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s) // which is twice as fast as ParseInt
	if err != nil || n < 0 || int64(n) > most {
		return 0, t.wrong(column, fmt.Sprintf("a whole number in 0..%d", most))
	}
	return int64(n), nil
}

// scaled reads a number in 0..most and returns it in units of 1/scale, rounded up; an empty value is 0.
func (t *table) scaled(column string, most float64, scale int64) (int64, error) {
	s := t.value(column)
	if s == "" {
		return 0, nil
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || !(x >= 0 && x <= most) {
		return 0, t.wrong(column, fmt.Sprintf("a number in 0..%g", most))
	}
	return int64(math.Ceil(x*float64(scale) - 1e-6)), nil
}

// seconds reads a time of at least least; an empty value is refused.
func (t *table) seconds(column string, least float64) (time.Duration, error) {
	d, ok := parseSeconds(t.value(column), least)
	if !ok {
		return 0, t.wrong(column, fmt.Sprintf("a number of seconds in %g..%g", least, float64(MaxSeconds)))
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
