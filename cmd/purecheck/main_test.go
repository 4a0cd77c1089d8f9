package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// scratch returns a policy for a package below testdata.
func scratch(name string, lvl level, allow ...string) policy {
	return policy{dir: "cmd/purecheck/testdata/" + name, level: lvl, allow: allow}
}

// TestFindings compares the findings of each planted package with the "want" comments in its source.
func TestFindings(t *testing.T) {
	t.Parallel()
	for _, p := range []policy{scratch("faults", pure), scratch("clean", pure), scratch("determ", deterministic)} {
		t.Run(filepath.Base(p.dir), func(t *testing.T) {
			t.Parallel()
			found, err := checkAll(".", []policy{p})
			if err != nil {
				t.Fatal(err)
			}
			wants := readWants(t, filepath.Join("testdata", filepath.Base(p.dir)))
			for _, f := range found {
				at := fmt.Sprintf("%s:%d", f.pos.Filename, f.pos.Line)
				i := slices.IndexFunc(wants[at], func(want string) bool { return strings.Contains(f.text, want) })
				if i < 0 {
					t.Errorf("unexpected finding: %s", f)
					continue
				}
				wants[at] = slices.Delete(wants[at], i, i+1)
			}
			for at, left := range wants {
				for _, want := range left {
					t.Errorf("%s: no finding with %q", at, want)
				}
			}
		})
	}
}

// readWants returns the texts of the "want" comments of a folder by "file:line".
func readWants(t *testing.T, dir string) map[string][]string {
	t.Helper()
	quoted := regexp.MustCompile(`"[^"]+"`)
	wants := map[string][]string{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("read the sources of %s: %v, %d files", dir, err, len(files))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			_, comment, ok := strings.Cut(line, "// want ")
			if !ok {
				continue
			}
			for _, want := range quoted.FindAllString(comment, -1) {
				at := fmt.Sprintf("%s:%d", file, i+1)
				wants[at] = append(wants[at], strings.Trim(want, `"`))
			}
		}
	}
	return wants
}

// TestClosure checks that packages reached through others count, and that the policy's list lets them pass.
func TestClosure(t *testing.T) {
	t.Parallel()
	const below = modulePath + "/cmd/purecheck/testdata/"
	const prefix = "cmd/purecheck/testdata/reach: must not reach " + below
	tests := []struct {
		name  string
		allow []string
		want  []string
	}{
		{"nothing allowed", nil, []string{
			prefix + "clean (imported by " + below + "other): the policy table allows the standard library only",
			prefix + "other (imported by " + below + "reach): the policy table allows the standard library only",
		}},
		{"direct import allowed", []string{below + "other"}, []string{
			prefix + "clean (imported by " + below + "other): the policy table allows besides the standard library only " + below + "other",
		}},
		{"both allowed", []string{below + "other", below + "clean"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			found, err := checkAll(".", []policy{scratch("reach", pure, tt.allow...)})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				got = append(got, f.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRun checks exit status and words of the command, also when it cannot check at all.
func TestRun(t *testing.T) {
	t.Parallel()
	table := []policy{scratch("clean", pure), scratch("determ", deterministic), scratch("missing", pure)}
	tests := []struct {
		name   string
		args   []string
		status int
		stdout string
		stderr string
	}{
		{"clean", []string{"./cmd/purecheck/testdata/clean"}, 0, "", "purecheck: 1 package(s) are clean"},
		{"by import path", []string{modulePath + "/cmd/purecheck/testdata/clean"}, 0, "", "1 package(s) are clean"},
		{
			"findings",
			[]string{"cmd/purecheck/testdata/determ"},
			1,
			"testdata/determ/determ.go:15:2: range over a map", "2 finding(s) in 1 package(s)",
		},
		{"not in the table", []string{"./cmd/gangline"}, 2, "", `check "cmd/gangline": it is not in the policy table`},
		{"package missing", []string{"./cmd/purecheck/testdata/missing"}, 2, "", "load packages with go list"},
		{"whole table, one missing", nil, 2, "", "load packages with go list"},
		{"unknown flag", []string{"-x"}, 2, "", "usage: purecheck"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if got := run(tt.args, ".", table, &stdout, &stderr); got != tt.status {
				t.Errorf("run(%q) = %d, want %d", tt.args, got, tt.status)
			}
			if !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("run(%q) printed\n%s\nand\n%s\nwant %q and %q", tt.args, &stdout, &stderr, tt.stdout, tt.stderr)
			}
			if tt.stdout == "" && stdout.Len() > 0 {
				t.Errorf("run(%q) printed findings:\n%s", tt.args, &stdout)
			}
		})
	}
}
