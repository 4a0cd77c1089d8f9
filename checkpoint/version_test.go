package checkpoint_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

// TestOlderVersionsAreRead opens what a release of version 2 wrote, and the same as of version 1, which had less. Version 4 has an HMAC always, and 5 is not known: both are refused.
func TestOlderVersionsAreRead(t *testing.T) {
	t.Parallel()
	for version, good := range map[int]bool{1: true, 2: true, 3: true, 4: false, 5: false} {
		root := t.TempDir()
		if err := os.CopyFS(root, os.DirFS("testdata/version-2")); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(root, ref(1, 7).String(), "MANIFEST.json")
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		other := bytes.Replace(data, []byte(`"version":2`), fmt.Appendf(nil, `"version":%d`, version), 1)
		if err := os.WriteFile(name, other, 0o600); err != nil {
			t.Fatal(err)
		}
		dir, err := checkpoint.NewDir(root)
		if err != nil {
			t.Fatal(err)
		}
		s, err := checkpoint.Open(checkpoint.Config{FS: dir, Job: "old-job"})
		if err != nil {
			t.Fatal(err)
		}
		mustFence(t, s, 2)
		m, skipped, err := s.Latest(t.Context())
		if !good {
			if len(skipped) != 1 || version == checkpoint.FormatVersion+1 && !strings.Contains(skipped[0].Err.Error(), "use the release that wrote it") {
				t.Errorf("version %d: %v, skipped %v", version, err, skipped)
			}
			continue
		}
		w := make([]float32, 64)
		if err == nil {
			err = s.ReadTensor(t.Context(), m, "w", w)
		}
		if err != nil || w[0] != 0 || w[63] != 63./8 {
			t.Fatalf("version %d: %v, %v", version, w, err)
		}
		// The next save goes on from it; it does not say enough to be referred to.
		for step := uint64(8); step <= 9; step++ {
			_, err := s.WriteShard(t.Context(), checkpoint.ShardWrite{Epoch: 2, Step: step, WorldSize: 1, Tensors: []checkpoint.Tensor{checkpoint.Whole("w", w, 8, 8)}})
			if err == nil {
				m, err = s.Commit(t.Context(), checkpoint.CommitRequest{Epoch: 2, Step: step, WorldSize: 1})
			}
			if err != nil || len(m.Refs()) != int(step-8) {
				t.Errorf("version %d: step %d refers to %v, %v", version, step, m.Refs(), err)
			}
		}
	}
}

// TestVersion3IsRead opens what the first release of version 3 wrote with all that it has: references, compression, encryption, differences.
func TestVersion3IsRead(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("testdata/version-3")); err != nil {
		t.Fatal(err)
	}
	dir, err := checkpoint.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	s := openAs(t, dir, checkpoint.Config{Key: testKey(t, 7), AcceptUnauthenticated: true})
	wantMixed(t, s, ref(1, 1))
	wantMixed(t, s, ref(1, 2))
	m := mustLoad(t, s, ref(1, 2))
	if len(m.Refs()) != 1 || m.Shards[0].Encoded == nil || m.KeyID() == "" || halfOf(&m).Base == 0 {
		t.Errorf("it has not all: %+v", m.Shards[0])
	}
}
