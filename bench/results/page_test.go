package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestRows: each row is either ours, with a command, or of others, with a source; one row of a section is held against
// the others; no command comes twice.
func TestRows(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range sections() {
		ours := 0
		for i := range s.rows {
			r := &s.rows[i]
			if (len(r.args) > 0) == (r.source != "") {
				t.Errorf("%s, %s: a command or a source, not both or neither", s.title, r.name)
			}
			if r.ours {
				ours++
			}
			if len(r.args) == 0 || r.copy > 0 {
				continue
			}
			if seen[r.command()] {
				t.Errorf("%s: %s comes twice", s.title, r.command())
			}
			seen[r.command()] = true
		}
		if ours > 1 {
			t.Errorf("%s: %d rows are held against the others", s.title, ours)
		}
	}
}

// TestLosses: the page says where others are better, and only there.
func TestLosses(t *testing.T) {
	t.Parallel()
	mine := best(run("mine", "x"))
	mine.got = figures{AvgJCT: 2000, P50JCT: 10, P99JCT: 30_000, Fairness: 2}
	all := []section{
		{title: "T", rows: []row{mine, known("theirs", "paper", 1500, none, 31_000, none)}},
		{title: "P", place: true, rows: []row{
			{name: "mine", ours: true, got: figures{Allocated: 96, Placed: map[string]int{"8": 3}}},
			allocated("low", "paper", 95),
			{name: "other", args: []string{"x"}, got: figures{Allocated: 95, Placed: map[string]int{"8": 4}}},
		}},
	}
	got := strings.Join(losses(all), "\n")
	want := "T: theirs (others) has an average JCT of 1,500 against 2,000\nP: other has 4 8-GPU pods placed against 3"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	text := page(all)
	for _, part := range []string{"| **mine** | 2,000 | 10 | 30,000 |", "| *theirs* | 1,500 | – | 31,000 | – | – |", "gangline sim run x   # 1\n"} {
		if !strings.Contains(text, part) {
			t.Errorf("the page lacks %q:\n%s", part, text)
		}
	}
}

// TestThin: a copy lacks some rows, not the heading, and is the same each time.
func TestThin(t *testing.T) {
	t.Parallel()
	in := "heading\n"
	for i := range 5000 {
		in += fmt.Sprintf("row %d\n", i)
	}
	var outs []string
	for _, seed := range []uint64{1, 1, 2} {
		var b strings.Builder
		if err := thin(strings.NewReader(in), &b, seed); err != nil {
			t.Fatal(err)
		}
		outs = append(outs, b.String())
	}
	if n := strings.Count(outs[0], "row"); !strings.HasPrefix(outs[0], "heading\n") || n < 4850 || n > 4950 {
		t.Errorf("%d of 5000 rows are left, about 4900 should be", n)
	}
	if outs[0] != outs[1] || outs[0] == outs[2] {
		t.Error("equal seeds should give equal copies, others another one")
	}
}
