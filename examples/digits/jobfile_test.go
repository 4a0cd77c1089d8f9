package main

import (
	"os"
	"testing"

	"github.com/gangline/gangline/scheduler/jobfile"
)

// TestJobFiles: the examples must be what `gangline submit` takes, and the command what this program takes.
func TestJobFiles(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"digits.yaml", "../hello.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := jobfile.Parse(file, text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if spec.GetName() != "digits" {
			continue
		}
		if _, err := parseFlags(spec.GetCommand()[1:], t.Output()); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
