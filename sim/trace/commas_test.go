package trace

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// saidBy is all that a reader says of a file: rows with the places of their values, and errors.
func saidBy(r rowReader) (out []string) {
	for range 100 {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return append(out, "the end")
		}
		at := []string{}
		for i := range row {
			if err == nil {
				line, column := r.FieldPos(i)
				at = append(at, fmt.Sprintf("%d:%d %q", line, column, row[i]))
			}
		}
		out = append(out, fmt.Sprint(len(row), at, err))
	}
	return append(out, "no end")
}

// TestCommasAreCSV: whatever a file holds, it is read as encoding/csv reads it.
func TestCommasAreCSV(t *testing.T) {
	t.Parallel()
	part := rapid.SampledFrom([]string{"a", "bc", ",", ",", "\n", "\n", "\r\n", "\r", " ", `"`, `""`, "x,y\n", "long" + strings.Repeat("g", 70_000)})
	rapid.Check(t, func(t *rapid.T) {
		file := "h" + strings.Join(rapid.SliceOfN(part, 0, 40).Draw(t, "file"), "")
		f, err := newText("file", strings.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		want := csv.NewReader(strings.NewReader(file))
		want.ReuseRecord = true
		w, g := saidBy(want), saidBy(&commas{from: f})
		if fmt.Sprint(w) != fmt.Sprint(g) {
			t.Fatalf("%q\n got %q\nwant %q", file, g, w)
		}
	})
}
