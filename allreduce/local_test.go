package allreduce_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/kernel"
	"github.com/gangline/gangline/allreduce/memlink"
	"github.com/gangline/gangline/allreduce/shm"
)

// newSharing returns the groups of all ranks, n >= 2, with links and a team in memory.
func newSharing(t testing.TB, n int, cfg allreduce.Config) ([]*allreduce.Group, []memlink.Ends) {
	t.Helper()
	if shm.Host() == "" {
		t.Skip("no shared memory here")
	}
	groups, ends := newRing(t, n, cfg)
	team, name, err := shm.Create(n)
	if err != nil {
		t.Fatal(err)
	}
	defer shm.Forget(name)
	groups[0].Share(team)
	for r := 1; r < n; r++ {
		team, err := shm.Join(name, r, n)
		if err != nil {
			t.Fatal(err)
		}
		groups[r].Share(team)
	}
	return groups, ends
}

// inOrder is what the ranks' vectors come to in shared memory: rank 0 and 1, then 2, and so on.
func inOrder(in [][]byte, typ allreduce.Type, op allreduce.Op) []byte {
	out, plain := slices.Clone(in[0]), kernel.Op(op)
	if op == allreduce.Mean {
		plain = kernel.Sum
	}
	for _, more := range in[1:] {
		kernel.Reduce(plain, typ, out, more)
	}
	if op == allreduce.Mean {
		kernel.Divide(typ, out, len(in))
	}
	return out
}

// TestSharedMemorySums: all types, operations and lengths, short and long in any sequence, with calls that take the ring between.
func TestSharedMemorySums(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(rt, "ranks")
		groups, _ := newSharing(t, n, allreduce.Config{Job: 1, Epoch: 1})
		defer closeAll(groups)
		for range rapid.IntRange(1, 6).Draw(rt, "calls") {
			typ, op := rapid.SampledFrom(allTypes).Draw(rt, "type"), rapid.SampledFrom(allOps).Draw(rt, "op")
			in := drawVectors(rt, n, typ)
			if long := rapid.IntRange(0, 3).Draw(rt, "long"); long > 0 && len(in[0]) > 0 {
				for r := range in {
					in[r] = bytes.Repeat(in[r], 1+long*shm.StageBytes/len(in[r]))
				}
			}
			got := make([][]byte, n)
			own := rapid.IntRange(0, 1<<n-1).Draw(rt, "own memory") // a bit for each rank
			for r := range got {
				got[r] = make([]byte, len(in[r]))
				if own&(1<<r) != 0 {
					memory, err := groups[r].Alloc(len(in[r]) + 8)
					if err != nil {
						rt.Fatalf("rank %d: %v", r, err)
					}
					defer groups[r].Free(memory)
					got[r] = memory[8*rapid.IntRange(0, 1).Draw(rt, "shift"):][:len(in[r])]
				}
				copy(got[r], in[r])
			}
			want := in[0]
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0:
				barrierAll(t, groups)
				continue
			case 1:
				onAll(rt, groups, func(r int, g *allreduce.Group) error { return g.Broadcast(t.Context(), allreduce.Bits(typ, got[r]), 0) })
			default:
				want = inOrder(in, typ, op)
				onAll(rt, groups, func(r int, g *allreduce.Group) error {
					return g.AllReduce(t.Context(), allreduce.Bits(typ, got[r]), op)
				})
			}
			for r := range got {
				if !bytes.Equal(got[r], want) {
					rt.Fatalf("rank %d of %d, %v of %v over %d bytes differs", r, n, op, typ, len(want))
				}
			}
		}
	})
}

// TestSharedMemoryOwnership: the caller may overwrite its buffer at once after a call, while slower ranks are still at it.
func TestSharedMemoryOwnership(t *testing.T) {
	t.Parallel()
	for _, length := range []int{100, shm.SmallBytes / 4, shm.StageBytes, 3*shm.StageBytes/4 + 5} {
		const n = 3
		groups, _ := newSharing(t, n, allreduce.Config{})
		onAll(t, groups, func(r int, g *allreduce.Group) error {
			data := make([]float32, length)
			for call := range 40 {
				for i := range data {
					data[i] = float32(r + call + i%10)
				}
				if err := g.AllReduce(t.Context(), allreduce.Of(data), allreduce.Sum); err != nil {
					return err
				}
				for i := range data {
					if want := float32(3 + n*(call+i%10)); data[i] != want {
						return fmt.Errorf("call %d, element %d of %d is %v, want %v", call, i, length, data[i], want)
					}
					data[i] = -1e30
				}
			}
			return nil
		})
		closeAll(groups)
	}
}

// TestSharedMemoryFrozenRank: ranks that wait in shared memory for one that is stopped learn its name from their links.
func TestSharedMemoryFrozenRank(t *testing.T) {
	t.Parallel()
	for _, length := range []int{10, 1 << 20} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			t.Parallel()
			const n, frozen = 3, 1
			groups, ends := newSharing(t, n, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: 500 * time.Millisecond})
			defer closeAll(groups)
			barrierAll(t, groups)
			ends[frozen].Next.Freeze()
			ends[frozen].Prev.Freeze()
			onOthers(groups, frozen, func(r int, g *allreduce.Group) {
				err := g.AllReduce(t.Context(), allreduce.Of(make([]float32, length)), allreduce.Sum)
				var lost *allreduce.RankLostError
				if !errors.As(err, &lost) || lost.Rank != frozen {
					t.Errorf("rank %d: %v, want that rank %d is lost", r, err, frozen)
				}
			})
		})
	}
}

// TestSharedMemoryMismatch: ranks that do not make the same call are told what both did.
func TestSharedMemoryMismatch(t *testing.T) {
	t.Parallel()
	groups, _ := newSharing(t, 3, allreduce.Config{Job: 7, Epoch: 3})
	defer closeAll(groups)
	errs := make([]error, 3)
	onAll(t, groups, func(r int, g *allreduce.Group) error {
		errs[r] = g.AllReduce(t.Context(), allreduce.Of(make([]float64, 10+r/2)), allreduce.Max)
		return nil
	})
	for r, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "10 elements") || !strings.Contains(err.Error(), "11 elements") {
			t.Errorf("rank %d: %v, want both lengths", r, err)
		}
	}
}

// TestSharedMemoryCloseDuringCall: a group that is closed while another goroutine waits in a call does not take its memory away.
func TestSharedMemoryCloseDuringCall(t *testing.T) {
	t.Parallel()
	groups, _ := newSharing(t, 2, allreduce.Config{})
	defer closeAll(groups)
	done := make(chan error, 1)
	go func() { done <- groups[0].Barrier(t.Context()) }()
	if err := groups[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, allreduce.ErrClosed) {
		t.Errorf("the call says %v", err)
	}
	if err := groups[0].Barrier(t.Context()); !errors.Is(err, allreduce.ErrClosed) {
		t.Errorf("the next call says %v", err)
	}
}

// TestAlloc: memory is zeroed, lies apart, is found again, comes back, and what is no memory of Alloc is left alone. A group without
// shared memory gives ordinary one.
func TestAlloc(t *testing.T) {
	t.Parallel()
	groups, _ := newSharing(t, 2, allreduce.Config{})
	defer closeAll(groups)
	plain, _ := newRing(t, 2, allreduce.Config{})
	defer closeAll(plain)
	for _, g := range []*allreduce.Group{groups[0], plain[0]} {
		var all [][]byte
		for _, size := range []int{1, 5000, 1 << 20, 0, 4096} {
			b, err := g.Alloc(size)
			if err != nil || len(b) != size || cap(b) != size {
				t.Fatalf("%d bytes: %d of %d, %v", size, len(b), cap(b), err)
			}
			if bytes.Count(b, []byte{0}) != size && size > 0 {
				t.Fatalf("%d bytes are not zeroed", size)
			}
			for i := range b {
				b[i] = byte(len(all) + 1)
			}
			all = append(all, b)
		}
		for i, b := range all {
			if bytes.Count(b, []byte{byte(i + 1)}) != len(b) {
				t.Errorf("memory %d was overwritten", i)
			}
		}
		g.Free(all[2])
		g.Free(all[1])
		g.Free(make([]byte, 10)) // not ours
		g.Free(nil)
		again, err := g.Alloc(5000)
		if err != nil || bytes.Count(again, []byte{0}) != 5000 {
			t.Errorf("memory that came back is not zeroed, or %v", err)
		}
	}
	if _, err := groups[0].Alloc(shm.ArenaBytes + 1); err == nil {
		t.Error("more than a rank's room was given")
	}
}

// TestSharedMemoryRefuses: names and places that no team has.
func TestSharedMemoryRefuses(t *testing.T) {
	t.Parallel()
	if shm.Host() == "" {
		t.Skip("no shared memory here")
	}
	team, name, err := shm.Create(2)
	if err != nil {
		t.Fatal(err)
	}
	defer team.Close() //nolint:errcheck // a test's memory
	defer shm.Forget(name)
	for what, err := range map[string]error{
		"another size":  second(shm.Join(name, 1, 3)),
		"no member":     second(shm.Join(name, 2, 2)),
		"another file":  second(shm.Join("../etc/passwd", 1, 2)),
		"no such file":  second(shm.Join(strings.Repeat("gangline-ring-", 2), 1, 2)),
		"too many":      second(shm.Join(name, 1, shm.MaxMembers+1)),
		"no member yet": second(shm.Join(name, 0, 2)),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if info, err := os.Stat("/dev/shm/" + name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the memory's file: %v, %v", info, err)
	}
}

func second[T any](_ T, err error) error { return err }
