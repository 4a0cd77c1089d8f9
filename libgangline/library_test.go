package main

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// testTimeout bounds each program that a test runs.
const testTimeout = 8 * time.Minute

// library builds the shared library as `make lib` does, only once, and gives its folder; it skips the test where it cannot be built.
func library(t *testing.T) string {
	t.Helper()
	dir, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	if dir == "" {
		t.Skip("no C compiler: the library needs cgo")
	}
	return dir
}

var buildOnce = sync.OnceValues(func() (string, error) {
	if _, err := exec.LookPath("cc"); err != nil {
		return "", nil
	}
	if out, err := exec.Command("make", "-C", "..", "lib", "CGO_ENABLED=1").CombinedOutput(); err != nil {
		return "", fmt.Errorf("make lib: %w\n%s", err, out)
	}
	return filepath.Abs(filepath.Join("..", "bin"))
})

func TestHeaderIsWhatTheLibraryHas(t *testing.T) {
	t.Parallel()
	dir := library(t)
	declared := prototypes(t, "gangline.h", `(?m)^(?:const gangline_error \*|int32_t )(gangline_\w+)\(([^;]*)\);`)
	if len(declared) < 20 {
		t.Fatalf("only %d calls are found in gangline.h: does the pattern still match?", len(declared))
	}
	file, err := elf.Open(filepath.Join(dir, "libgangline.so"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	symbols, err := file.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF && s.Name != "" {
			shown[s.Name] = true
		}
	}
	for name := range declared {
		if !shown[name] {
			t.Errorf("gangline.h declares %s, the library does not show it", name)
		}
		delete(shown, name)
	}
	for name := range shown {
		t.Errorf("the library shows %s, gangline.h does not declare it", name)
	}
}

// TestExportsAreWhatTheHeaderSays holds the types of what Go exports against those of the calls that pass their arguments on unchanged.
// For the others the C compiler does it.
func TestExportsAreWhatTheHeaderSays(t *testing.T) {
	t.Parallel()
	dir := library(t)
	exports := prototypes(t, filepath.Join(dir, "cgo", "libgangline.h"), `(?m)^extern (?:\w+ )+(go\w+)\((.*)\);`)
	declared := prototypes(t, "gangline.h", `(?m)^int32_t (gangline_\w+)\(([^;]*)\);`)
	compared := 0
	for name, takes := range exports {
		if strings.Contains(takes, "Go") {
			t.Errorf("%s takes a type of Go: %s", name, takes)
		}
		want, ok := declared["gangline_"+underscored(strings.TrimPrefix(name, "go"))]
		if !ok {
			continue
		}
		compared++
		if takes != want {
			t.Errorf("%s takes %s, the header says %s", name, takes, want)
		}
	}
	if compared < 12 {
		t.Errorf("only %d of %d exports have a call of the same name", compared, len(exports))
	}
}

var upper = regexp.MustCompile(`[A-Z]`)

func underscored(name string) string {
	return strings.TrimPrefix(upper.ReplaceAllStringFunc(name, func(s string) string { return "_" + strings.ToLower(s) }), "_")
}

var parameterName = regexp.MustCompile(`\w+$`)

// prototypes gives the types of the arguments of each function that a header declares.
func prototypes(t *testing.T, header, pattern string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(header)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(data), -1) {
		var types []string
		for p := range strings.SplitSeq(m[2], ",") {
			p = parameterName.ReplaceAllString(strings.TrimSpace(p), "")
			p = strings.Join(strings.Fields(strings.ReplaceAll(strings.ReplaceAll(p, "const", " "), "*", " * ")), " ")
			types = append(types, p)
		}
		all[m[1]] = strings.Join(types, ", ")
	}
	return all
}

func TestHeaderIsPlainC(t *testing.T) {
	t.Parallel()
	library(t)
	for _, args := range [][]string{{"cc", "-std=c99", "-x", "c"}, {"g++", "-std=c++11", "-x", "c++"}} {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("no %s: not tried", args[0])
			continue
		}
		args = append(args, "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "gangline.h")
		if args[0] == "g++" {
			args = slices.DeleteFunc(args, func(a string) bool { return a == "-pedantic" }) // g++ warns of any header as a main file
		}
		run(t, nil, args...)
	}
}

func TestFromC(t *testing.T) {
	t.Parallel()
	dir := library(t)
	program := filepath.Join(t.TempDir(), "rank")
	run(t, nil, "cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I.", "-o", program, "testdata/rank.c", "-L"+dir, "-Wl,-rpath,"+dir, "-lgangline", "-lpthread")
	for _, world := range []int{1, 2, 4} {
		ranks(t, program, world)
	}
}

// ranks runs a world of processes, each of which prints its address and reads those of all.
func ranks(t *testing.T, program string, world int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	dir := t.TempDir()
	var addresses strings.Builder
	var inputs []interface{ Write([]byte) (int, error) }
	var wait []func() error
	for rank := range world {
		cmd := exec.CommandContext(ctx, program, fmt.Sprint(rank), fmt.Sprint(world), dir)
		var said bytes.Buffer
		cmd.Stderr = &said
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, in)
		wait = append(wait, func() error {
			if err := cmd.Wait(); err != nil {
				return fmt.Errorf("rank %d of %d: %w\n%s", rank, world, err, said.String())
			}
			return nil
		})
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Errorf("rank %d of %d told no address: %v", rank, world, err)
		}
		addresses.WriteString(line)
	}
	for _, in := range inputs {
		_, _ = in.Write([]byte(addresses.String())) // a rank that does not read fails by itself
	}
	for _, w := range wait {
		if err := w(); err != nil {
			t.Error(err)
		}
	}
}

// python is Debian's, whose packages the tests use.
const python = "/usr/bin/python3"

func TestFromPython(t *testing.T) {
	t.Parallel()
	dir := library(t)
	if err := exec.Command(python, "-c", "import numpy").Run(); err != nil {
		t.Skipf("no %s with NumPy: %v", python, err)
	}
	out := run(t, []string{"GANGLINE_LIBRARY=" + filepath.Join(dir, "libgangline.so"), "PYTHONPATH=../python:../python/tests", "PYTHONDONTWRITEBYTECODE=1"},
		python, "-W", "error::ResourceWarning", "-m", "unittest", "discover", "-s", "../python/tests", "-v")
	for line := range strings.Lines(out) {
		if strings.Contains(line, "skipped") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// run runs a program with variables added to the environment and gives what it printed; an error fails the test.
func run(t *testing.T, env []string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
