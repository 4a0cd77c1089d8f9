package shm

import (
	"testing"
	"unsafe"
)

// TestVectorsDoNotPutEachOtherOut: where members' vectors begin differs in the bits that choose a place in a core's first cache, and in those by which
// AMD's processors guess it.
func TestVectorsDoNotPutEachOtherOut(t *testing.T) {
	t.Parallel()
	const members = 8
	first, name, err := Create(members)
	if err != nil {
		t.Skip(err)
	}
	defer first.Close() //nolint:errcheck // a test's memory
	defer Forget(name)
	sets, guesses := map[uintptr]int{}, map[uintptr]int{}
	for m := range members {
		team := first
		if m > 0 {
			if team, err = Join(name, m, members); err != nil {
				t.Fatal(err)
			}
			defer team.Close() //nolint:errcheck // a test's memory
		}
		v, err := team.Alloc(100_000)
		if err != nil {
			t.Fatal(err)
		}
		at, ok := team.Find(v)
		if !ok {
			t.Fatalf("member %d does not find its vector", m)
		}
		seen, err := first.Seen(m, at, len(v)) // as one member sees them all
		if err != nil {
			t.Fatal(err)
		}
		v[0], v[len(v)-1] = byte(m+1), byte(m+2)
		if seen[0] != byte(m+1) || seen[len(v)-1] != byte(m+2) {
			t.Errorf("member %d's vector is not where it says", m)
		}
		p := uintptr(unsafe.Pointer(&seen[0]))
		set, bits := p%pageSize, p>>12&0xffff
		guess := bits & 0xff
		for i := range 8 {
			guess ^= bits >> (15 - i) & 1 << i
		}
		if other, taken := sets[set]; taken {
			t.Errorf("members %d and %d share a place in the cache", other, m)
		}
		if other, taken := guesses[guess]; taken {
			t.Errorf("members %d and %d are guessed to lie at one place", other, m)
		}
		sets[set], guesses[guess] = m, m
		team.Free(v)
		if again, err := team.Alloc(100_000); err != nil || &again[0] != &v[0] || again[0] != 0 {
			t.Errorf("member %d: what was given back is not given again, or not zeroed: %v", m, err)
		}
	}
}
