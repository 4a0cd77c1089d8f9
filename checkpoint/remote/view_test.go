package remote_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
)

// TestViewOfCopies reads a job's copies where they are as a directory: those of files, and those that refer to others. It writes nothing.
func TestViewOfCopies(t *testing.T) {
	t.Parallel()
	s, ms := tuned(t, 3)
	b := pushed(t, s, ms)
	if err := remote.Pin(t.Context(), b, "job-7", ms[1].Ref()); err != nil {
		t.Fatal(err)
	}
	before := left(t, b)
	dir, err := remote.View(t.Context(), b, "job-7")
	if err != nil {
		t.Fatal(err)
	}
	v := open(t, dir)
	found, err := v.Inventory(t.Context(), time.Now())
	if err != nil || len(found) != 3 || !found[1].Pinned || found[0].Pinned || !found[2].Complete {
		t.Errorf("inventory %+v, %v", found, err)
	}
	m, skipped, err := v.Latest(t.Context())
	got := make([]float32, elements)
	if err == nil {
		err = v.ReadTensor(t.Context(), m, "w", got)
	}
	if err != nil || m.Step != 3 || len(skipped) > 0 || !slices.Equal(got, weights()) {
		t.Errorf("the latest is %v, skipped %v, %v", m.Ref(), skipped, err)
	}
	for _, err := range []error{v.Fence(t.Context(), 2), v.Pin(t.Context(), m.Ref())} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("a change: %v", err)
		}
	}
	if _, err := dir.Open("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing object: %v", err)
	}
	for _, name := range before {
		if strings.HasSuffix(name, ".glck") && strings.Contains(name, ms[0].Ref().String()) {
			b.Flip(name, 3*checkpoint.Align)
		}
	}
	if err := v.Verify(t.Context(), m); !isDamage(err) {
		t.Errorf("a flipped bit in what it refers to: %v", err)
	}
	if after := left(t, b); !slices.Equal(before, after) {
		t.Errorf("objects before %v, after %v", before, after)
	}
}
