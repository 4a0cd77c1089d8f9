package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets this test binary be the real program: when it is called
// "gangline", as in the scripts and in the clusters of these tests, and for
// the verbs by which an agent or a benchmark starts it as /proc/self/exe.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "supervise" || os.Args[1] == "gpu-probe" || os.Args[1] == "bench") {
		main()
	}
	if filepath.Base(os.Args[0]) != "gangline" {
		// What the person who runs the tests has set is not for the tests.
		for _, e := range os.Environ() {
			if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "GANGLINE_") {
				_ = os.Unsetenv(name) // a valid name
			}
		}
	}
	testscript.Main(m, map[string]func(){"gangline": main})
}
