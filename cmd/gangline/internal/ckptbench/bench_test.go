package ckptbench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// beRank has this test binary be a rank.
const beRank = "-be-a-rank"

func TestMain(m *testing.M) {
	if slices.Contains(os.Args, beRank) {
		if err := RankMain(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// fakePython gives a program that answers as peer.py does; dcp is its answer to the question for the distributed checkpoint.
func fakePython(t *testing.T, dcp string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python")
	script := `#!/bin/sh
[ "$2" = "import torch" ] && exit 0
while read -r line; do
  case "$line" in
  *'"op":"dcp"'*) echo '` + dcp + `' ;;
  *) echo '{"seconds":2}' ;;
  esac
done
`
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	return path
}

// TestPeersThatAreNotThere runs with a PyTorch that has a distributed checkpoint, with one that has none, and with none.
func TestPeersThatAreNotThere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		python  string
		peers   int
		skipped string
	}{
		"all":      {fakePython(t, `{"seconds":0}`), 4, ""},
		"no dcp":   {fakePython(t, `{"error":"no module"}`), 2, "torch_dcp"},
		"no torch": {"/bin/false", 0, "torch"},
	} {
		r, err := Run(t.Context(), Config{
			Bytes: 1 << 20, Ranks: 2, Dir: t.TempDir(), Rounds: 1, Torch: true, Python: c.python,
			Self: []string{os.Args[0], beRank}, Log: t.Logf,
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !r.Verified || r.SaveGBs <= 0 || r.LoadColdGBs <= 0 || r.StallS <= 0 {
			t.Errorf("%s: %+v", name, r)
		}
		if len(r.Peers) != c.peers || (c.skipped == "") != (len(r.Skipped) == 0) || c.skipped != "" && r.Skipped[c.skipped] == "" {
			t.Errorf("%s: peers %v, skipped %v", name, r.Peers, r.Skipped)
		}
		for peer, p := range r.Peers {
			if p.SaveGBs <= 0 || p.LoadGBs <= 0 || p.LoadHotGBs <= 0 || p.Ratio <= 0 || !strings.HasPrefix(peer, "torch_") {
				t.Errorf("%s: %s: %+v", name, peer, p)
			}
		}
	}
}

// TestTooLittleRoom: what does not fit is said before anything is measured.
func TestTooLittleRoom(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), Config{Bytes: 1 << 60, Ranks: 1, Dir: t.TempDir(), Rounds: 1, Self: []string{"/bin/false"}, Log: t.Logf})
	if err == nil || !strings.Contains(err.Error(), "4 times 1152921504606846976 bytes must be free") {
		t.Errorf("a state larger than any disk: %v", err)
	}
}
