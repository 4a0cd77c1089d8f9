package checkpoint

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDirectWriteFallsBack writes bytes that O_DIRECT refuses (an odd count), as some file systems refuse any.
func TestDirectWriteFallsBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	f, err := openBulk(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		t.Fatal(err)
	}
	page := AlignedBuffer(Align)
	page[0] = 'x'
	for _, p := range [][]byte{page, []byte("odd"), page} {
		if n, err := f.Write(p); err != nil || n != len(p) {
			t.Fatalf("write %d bytes: %d, %v", len(p), n, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if want := string(page) + "odd" + string(page); err != nil || string(got) != want {
		t.Errorf("file has %d bytes, %v; want %d", len(got), err, len(want))
	}
}
