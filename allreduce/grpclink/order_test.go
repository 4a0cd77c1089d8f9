package grpclink_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// doorbell is a relay that tells when somebody dials.
type doorbell struct {
	net.Listener
	once sync.Once
	rung chan struct{}
}

func (d *doorbell) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err == nil {
		d.once.Do(func() { close(d.rung) })
	}
	return conn, err
}

// TestRanksComeInAnyOrder: each rank is there only after the one before has dialled it, whichever comes first; and the ring forms.
func TestRanksComeInAnyOrder(t *testing.T) {
	t.Parallel()
	const n = 4
	for first := range n {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			t.Parallel()
			ls, peers := listeners(t, n)
			bells, relays := make([]*doorbell, n), make([]*relay, n)
			for r := range n {
				front, _ := listeners(t, 1)
				bells[r] = &doorbell{Listener: front[0], rung: make(chan struct{})}
				relays[r] = &relay{listener: bells[r], target: peers[r], hold: make(chan struct{}), ended: make(chan struct{})}
				relays[r].done.Go(relays[r].accept)
				defer relays[r].cut()
				peers[r] = bells[r].Addr().String()
			}
			groups := make([]*allreduce.Group, n)
			var all errgroup.Group
			for k := range n {
				r := (first + k) % n
				if k > 0 {
					<-bells[r].rung
				}
				all.Go(func() (err error) {
					groups[r], err = grpclink.Join(t.Context(), config(r, peers, ls[r]))
					return err
				})
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}
			defer closeAll(groups)
			for r, g := range groups {
				all.Go(func() error { return sumOnce(t.Context(), g, r, n, 1000) })
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestCrossedAddresses: a rank of one group that was given an address of another is refused there, by job, and the other group takes no harm; nor do
// two groups that were given each other's ranks, of one job and epoch, by their secrets.
func TestCrossedAddresses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *grpclink.Config){
		"another job":    func(c *grpclink.Config) { c.Job = job + 1 },
		"another secret": func(c *grpclink.Config) { c.Secret = []byte("that of the other group") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ls, peers := listeners(t, 4)
			good, crossed := peers[:2], []string{peers[2], peers[1]} // the second group's rank 0 believes rank 1 to be at the first group's
			var all, strangers errgroup.Group
			groups := make([]*allreduce.Group, 2)
			for r := range groups {
				all.Go(func() (err error) {
					groups[r], err = grpclink.Join(t.Context(), config(r, good, ls[r]))
					return err
				})
			}
			errs := make([]error, 2)
			for r, own := range [][]string{crossed, peers[2:]} {
				strangers.Go(func() error {
					cfg := config(r, own, ls[2+r])
					cfg.JoinTimeout = time.Second
					change(&cfg)
					_, errs[r] = grpclink.Join(t.Context(), cfg)
					return nil
				})
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}
			defer closeAll(groups)
			_ = strangers.Wait()
			var lost *allreduce.RankLostError
			for r, err := range errs {
				if !errors.As(err, &lost) {
					t.Errorf("rank %d of the second group: %v", r, err)
				}
			}
			if err := errs[0]; err != nil && !strings.Contains(err.Error(), "refused by the ring") && !strings.Contains(err.Error(), unknown) {
				t.Errorf("rank 0 of the second group: %v, want it to say who answered", err)
			}
			for r, g := range groups {
				all.Go(func() error { return sumOnce(t.Context(), g, r, 2, 1000) })
			}
			if err := all.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
