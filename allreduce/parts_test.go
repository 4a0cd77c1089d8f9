package allreduce_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gangline/gangline/allreduce"
)

// errWrong is of a call that said it went well, and did not.
var errWrong = errors.New("the result is wrong")

// summed calls with a vector and checks what it became: elements lo to hi hold sums over all n ranks.
func summed(rank, n, length int, call func(v allreduce.Vector) (lo, hi int, err error)) error {
	data := make([]float32, length)
	for i := range data {
		data[i] = float32(rank + i%8)
	}
	lo, hi, err := call(allreduce.Of(data))
	for i := lo; err == nil && i < hi; i++ {
		if want := float32(n*(n-1)/2 + n*(i%8)); data[i] != want {
			return fmt.Errorf("%w: element %d of %d is %v, want %v", errWrong, i, length, data[i], want)
		}
	}
	return err
}

// part is one thing that a program does.
type part struct {
	name string
	run  func(ctx context.Context, g *allreduce.Group, rank, n int) error
}

// whole is summed of an all-reduce.
func whole(length int, wire allreduce.Wire) func(ctx context.Context, g *allreduce.Group, rank, n int) error {
	return func(ctx context.Context, g *allreduce.Group, rank, n int) error {
		return summed(rank, n, length, func(v allreduce.Vector) (int, int, error) {
			return 0, length, g.AllReduce(ctx, v.Over(wire), allreduce.Sum)
		})
	}
}

// parts are all that ranks can do together.
var parts = []part{
	{"barrier", func(ctx context.Context, g *allreduce.Group, _, _ int) error { return g.Barrier(ctx) }},
	{"all-reduce on the ring", whole(150, allreduce.WireExact)},
	{"reduce-scatter", func(ctx context.Context, g *allreduce.Group, rank, n int) error {
		return summed(rank, n, 50, func(v allreduce.Vector) (int, int, error) { return g.ReduceScatter(ctx, v, allreduce.Sum) })
	}},
	{"all-gather", func(ctx context.Context, g *allreduce.Group, rank, n int) error {
		data := make([]int32, 60)
		lo, hi := allreduce.Share(len(data), n, rank)
		for i := lo; i < hi; i++ {
			data[i] = int32(1000 + i) //nolint:gosec // small
		}
		return checked(g.AllGather(ctx, allreduce.Of(data)), data, 1000)
	}},
	{"broadcast", func(ctx context.Context, g *allreduce.Group, rank, _ int) error {
		data := make([]int32, 40)
		for i := range data {
			if rank == 1 {
				data[i] = int32(2000 + i) //nolint:gosec // small
			}
		}
		return checked(g.Broadcast(ctx, allreduce.Of(data), 1), data, 2000)
	}},
	{"all-reduce as bf16", whole(60, allreduce.WireBFloat16)},
	{"recursive doubling", whole(10, allreduce.WireExact)},
	{"messages", func(ctx context.Context, g *allreduce.Group, rank, n int) error {
		data := make([]int32, 40)
		for i := range data {
			data[i] = int32(3000 + i) //nolint:gosec // small
		}
		if err := g.Send(ctx, allreduce.Of(data), (rank+1)%n); err != nil {
			return err
		}
		got := make([]int32, len(data))
		return checked(g.Recv(ctx, allreduce.Of(got), (rank+n-1)%n), got, 3000)
	}},
	{"started calls", startedCalls},
	{"fused vectors", fusedVectors},
	{"last barrier", func(ctx context.Context, g *allreduce.Group, _, _ int) error { return g.Barrier(ctx) }},
}

func checked(err error, data []int32, from int) error {
	for i, x := range data {
		if err == nil && int(x) != from+i {
			return fmt.Errorf("%w: element %d is %d, want %d", errWrong, i, x, from+i)
		}
	}
	return err
}

func startedCalls(ctx context.Context, g *allreduce.Group, rank, n int) error {
	var wait sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		tag := g.NextTag()
		wait.Go(func() {
			errs[i] = summed(rank, n, 30*(i+1), func(v allreduce.Vector) (int, int, error) {
				h, err := g.StartAllReduce(tag, v, allreduce.Sum)
				if err == nil {
					err = h.Wait(ctx)
				}
				return 0, v.Len(), err
			})
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func fusedVectors(ctx context.Context, g *allreduce.Group, rank, n int) error {
	f, err := allreduce.NewFuser(g, allreduce.FuserConfig{Type: allreduce.Float32, Op: allreduce.Sum, Bytes: 128})
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // gives memory back
	var wait sync.WaitGroup
	errs, added := make([]error, 5), make(chan error, 5)
	flushed := make(chan struct{})
	for place := range errs {
		wait.Go(func() {
			errs[place] = summed(rank, n, 11, func(v allreduce.Vector) (int, int, error) {
				err := f.Add(place, v)
				added <- err
				<-flushed
				return 0, v.Len(), err
			})
		})
	}
	for range errs {
		err = errors.Join(err, <-added)
	}
	if err == nil {
		err = f.Flush(ctx)
	}
	if err != nil {
		errs = append(errs, err)
	}
	close(flushed)
	wait.Wait()
	if err != nil {
		return err // vectors are neither input nor result
	}
	return errors.Join(errs...)
}
