package shm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMemoryOfOthersIsRefused: memory that others could have opened is none that a rank puts its elements into.
func TestMemoryOfOthersIsRefused(t *testing.T) {
	t.Parallel()
	team, name, err := Create(2)
	if err != nil {
		t.Skip(err)
	}
	defer team.Close() //nolint:errcheck // a test's memory
	defer Forget(name)
	if len(name) < len(prefix)+20 {
		t.Errorf("the name %q can be guessed", name)
	}
	second, err := Join(name, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	copy(team.Seal(), "who made it")
	if got := string(second.Seal()[:11]); got != "who made it" {
		t.Errorf("the second member sees the seal %q", got)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(folder, name), 0o660); err != nil { //nolint:gosec // what must be refused
		t.Fatal(err)
	}
	if _, err := Join(name, 1, 2); err == nil || !strings.Contains(err.Error(), "mode") {
		t.Errorf("Join of memory that a group may open: %v", err)
	}
}
