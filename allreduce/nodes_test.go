package allreduce_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
	"github.com/gangline/gangline/allreduce/kernel"
	"github.com/gangline/gangline/allreduce/shm"
)

// joinMachines joins a ring whose ranks are taken to be on several machines: sizes says how many are on each.
func joinMachines(t *testing.T, path grpclink.Path, sizes []int) []*allreduce.Group {
	t.Helper()
	if shm.Host() == "" {
		t.Skip("no shared memory here")
	}
	var listeners []net.Listener
	var peers, machines []string
	for m, size := range sizes {
		for range size {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			listeners, peers, machines = append(listeners, l), append(peers, l.Addr().String()), append(machines, fmt.Sprint("machine ", m))
		}
	}
	groups := make([]*allreduce.Group, len(peers))
	var all errgroup.Group
	for r := range groups {
		all.Go(func() (err error) {
			groups[r], err = grpclink.Join(t.Context(), grpclink.Config{
				Job: 7, Epoch: 3, Rank: r, Peers: peers, Listener: listeners[r], Path: path, Machine: machines[r], Secret: []byte("a secret of machines"),
			})
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	return groups
}

// byMachine is what the ranks' vectors come to: those of each machine in their order, then the machines' round their ring.
func byMachine(in [][]byte, sizes []int, typ allreduce.Type, op allreduce.Op) []byte {
	var sums [][]byte
	for at, m := 0, 0; m < len(sizes); at, m = at+sizes[m], m+1 {
		sum := slices.Clone(in[at])
		for _, more := range in[at+1 : at+sizes[m]] {
			kernel.Reduce(kernel.Op(plainOf(op)), typ, sum, more)
		}
		sums = append(sums, sum)
	}
	out := combined(sums, typ, plainOf(op))
	if op == allreduce.Mean {
		kernel.Divide(typ, out, len(in))
	}
	return out
}

func plainOf(op allreduce.Op) allreduce.Op {
	if op == allreduce.Mean {
		return allreduce.Sum
	}
	return op
}

// TestByMachines: over machines of any sizes all ranks have the documented bits, short vectors those of recursive doubling, long ones those of
// machines, one after the other and with other calls between.
func TestByMachines(t *testing.T) {
	t.Parallel()
	for i, sizes := range [][]int{{2, 2}, {3, 1}, {1, 2, 3}} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			t.Parallel()
			groups := joinMachines(t, []grpclink.Path{grpclink.PathNodes, grpclink.PathAuto}[i%2], sizes)
			defer closeAll(groups)
			for call, length := range []int{7, 20_000, 400_001, 3, 131_072, 9_000} {
				typ, op := allTypes[call%len(allTypes)], allOps[(call+i)%len(allOps)]
				in := make([][]byte, len(groups))
				for r := range in {
					in[r] = make([]byte, length*typ.Size())
					for j := range in[r] {
						in[r][j] = byte(j*7+r*13+call)&0x83 | 0x30
					}
				}
				want := byMachine(in, sizes, typ, op)
				if len(in[0]) <= allreduce.DefaultSmallBytes {
					want = doubled(in, typ, op)
				}
				onAll(t, groups, func(r int, g *allreduce.Group) error {
					if err := g.AllReduce(t.Context(), allreduce.Bits(typ, in[r]), op); err != nil {
						return err
					}
					return g.Barrier(t.Context())
				})
				for r := range in {
					if !bytes.Equal(in[r], want) {
						t.Fatalf("%v of %d elements of %v: rank %d has other bits", op, length, typ, r)
					}
				}
			}
		})
	}
}

// TestLossOfAMachinesLeader: who waits for a leader, on its machine or another, learns that it is gone.
func TestLossOfAMachinesLeader(t *testing.T) {
	t.Parallel()
	groups := joinMachines(t, grpclink.PathNodes, []int{2, 2})
	defer closeAll(groups)
	onAll(t, groups, func(r int, g *allreduce.Group) error {
		if r == 2 {
			return g.Close()
		}
		err := g.AllReduce(t.Context(), allreduce.Of(make([]float32, 100_000)), allreduce.Sum)
		var lost *allreduce.RankLostError
		if !errors.As(err, &lost) || lost.Rank != 2 {
			return fmt.Errorf("%v, want that rank 2 is lost", err) //nolint:errorlint // for a text
		}
		return nil
	})
}

// TestNodesOnOneMachine: the path for several machines is refused where there is one only.
func TestNodesOnOneMachine(t *testing.T) {
	t.Parallel()
	if _, err := grpclink.ParsePath("nodes"); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peers := []string{l.Addr().String(), k.Addr().String()}
	var all errgroup.Group
	for r, listener := range []net.Listener{l, k} {
		all.Go(func() error {
			g, err := grpclink.Join(t.Context(), grpclink.Config{Job: 1, Epoch: 1, Rank: r, Peers: peers, Listener: listener, Path: grpclink.PathNodes, Secret: []byte("a secret of machines")})
			if err == nil {
				_ = g.Close()
				return errors.New("it joined")
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}
