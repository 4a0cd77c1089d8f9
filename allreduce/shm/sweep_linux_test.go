package shm

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// ownerVariable makes a process of the test's program the owner of a team.
const ownerVariable = "GANGLINE_TEST_OWNS_TEAM"

func TestMain(m *testing.M) {
	if os.Getenv(ownerVariable) != "" {
		_, name, err := Create(2)
		if err != nil {
			name = err.Error()
		}
		_, _ = os.Stdout.WriteString(name) // the test reads it
		os.Exit(0)                         // without Forget
	}
	os.Exit(m.Run())
}

// TestNamesOfTheDeadAreSwept: a team's name whose owner died before it forgot it goes with the next team, and that of one who lives stays.
func TestNamesOfTheDeadAreSwept(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerVariable+"=1")
	out, err := cmd.Output()
	dead := filepath.Join(folder, string(out))
	if err != nil || !exists(dead) {
		t.Fatalf("no team: %q, %v", out, err)
	}
	team, name, err := Create(2)
	if err != nil {
		t.Fatal(err)
	}
	defer team.Close() //nolint:errcheck // returns nil
	defer Forget(name)
	sweep(time.Now().Add(-time.Hour))
	if !exists(dead) {
		t.Error("a name was swept that may be in the making")
	}
	sweep(time.Now().Add(time.Second))
	if exists(dead) {
		t.Error("the name of a dead owner stays")
	}
	if !exists(filepath.Join(folder, name)) {
		t.Error("the name of an owner who lives was swept")
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
