package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// What holds a checkpoint in the bucket, and what is about to remove it, is said by objects whose names say all:
//
//	JOB/leases/step-0000000120.epoch-3~1790000000~host-4711-X     it is read, or pushed, or referred to by what is pushed, until that Unix second, by whom
//	JOB/pins/step-0000000120.epoch-3                              a person keeps it
//	JOB/removing/step-0000000120.epoch-3~1790000000~host-4711-X   its files are being removed, until that second at the latest
//
// Who reads or pushes puts a lease first, then looks whether it is being removed; who removes says so first, then looks for leases. So one of the
// two sees the other.
const (
	leaseDir    = "leases"
	pinDir      = "pins"
	removingDir = "removing"

	// leaseFor is how long a lease lasts whose holder died: 10 TiB at 1 GB/s take 3 hours.
	leaseFor = 6 * time.Hour
	// removeWithin bounds a removal, by the remover's own clock; removingFor is for how long others believe that it goes on. What is between
	// them is for clocks that differ.
	removeWithin = 10 * time.Minute
	removingFor  = 20 * time.Minute
)

// ErrRemoving says that a checkpoint, or one that it refers to, is just being removed from the bucket. Try again: it takes minutes at most.
var ErrRemoving = errors.New("it is being removed from the object store")

// stamped gives the name of a note that runs out. The names of two processes, and of two calls, differ.
func stamped(job, dir string, ref checkpoint.Ref, until time.Time) string {
	host, err := os.Hostname()
	if err != nil {
		host = "somebody"
	}
	return fmt.Sprintf("%s/%s/%s~%d~%s-%d-%s", job, dir, ref, until.Unix(), strings.ReplaceAll(host, "~", "_"), os.Getpid(), rand.Text()[:8])
}

// notes gives the checkpoints that one directory of notes names, with who put them, those that have run out left out, and the names of these. now is the time by
// which notes run out.
func notes(ctx context.Context, b Bucket, job, dir string, now time.Time) (live map[checkpoint.Ref]string, over []string, err error) {
	objects, err := b.List(ctx, job+"/"+dir+"/")
	if err != nil {
		return nil, nil, err
	}
	live = map[checkpoint.Ref]string{}
	for _, o := range objects {
		parts := strings.SplitN(strings.TrimPrefix(o.Name, job+"/"+dir+"/"), "~", 3)
		ref, err := checkpoint.ParseRef(parts[0])
		if err != nil {
			continue // not ours
		}
		if len(parts) < 3 {
			live[ref] = "" // a pin
			continue
		}
		until, err := strconv.ParseInt(parts[1], 10, 64)
		if err != nil || until <= now.Unix() || until > now.Add(checkpoint.MaxLease).Unix() {
			over = append(over, o.Name)
			continue
		}
		live[ref] = parts[2]
	}
	return live, over, nil
}

// Lease keeps checkpoints in the bucket from Collect and Remove until release is called, or for 6 hours. ErrRemoving says that one of
// them is being removed; it need not be there.
func Lease(ctx context.Context, b Bucket, job string, refs ...checkpoint.Ref) (release func() error, err error) {
	now := time.Now()
	var names []string
	release = func() error {
		if err := b.Remove(context.WithoutCancel(ctx), names); err != nil {
			return fmt.Errorf("give back the lease of %v of %s: %w", refs, job, err)
		}
		return nil
	}
	for _, ref := range refs {
		name := stamped(job, leaseDir, ref, now.Add(leaseFor))
		names = append(names, name)
		if err := b.PutNew(ctx, name, nil); err != nil && !errors.Is(err, ErrExists) { // ErrExists: a lost answer to our own try
			_ = release() // it runs out by itself
			return nil, fmt.Errorf("lease %s of %s: %w", ref, job, err)
		}
	}
	removing, _, err := notes(ctx, b, job, removingDir, now)
	if err == nil {
		for _, ref := range refs {
			if who, is := removing[ref]; is {
				err = fmt.Errorf("%s of %s: %w, by %s", ref, job, ErrRemoving, who)
			}
		}
	}
	if err != nil {
		_ = release() // likewise
		return nil, err
	}
	return release, nil
}

// Pin keeps a complete checkpoint in the bucket from Collect and Remove until Unpin. Pinning it again changes nothing. A missing one gives checkpoint.ErrNone.
func Pin(ctx context.Context, b Bucket, job string, ref checkpoint.Ref) error {
	// The lease keeps it from a removal that has not seen the pin.
	release, err := Lease(ctx, b, job, ref)
	if err != nil {
		return err
	}
	err = b.PutNew(ctx, pinName(job, ref), nil)
	if errors.Is(err, ErrExists) {
		err = nil
	}
	if err == nil {
		if _, err = readAll(ctx, b, prefixOf(job, ref)+manifestName); err != nil {
			if errors.Is(err, ErrNotFound) {
				err = fmt.Errorf("%s of %s: %w", ref, job, checkpoint.ErrNone)
			}
			err = errors.Join(err, Unpin(ctx, b, job, ref))
		}
	}
	return errors.Join(err, release())
}

// Unpin takes a pin away. One that is not there is no error.
func Unpin(ctx context.Context, b Bucket, job string, ref checkpoint.Ref) error {
	return b.Remove(ctx, []string{pinName(job, ref)})
}

func pinName(job string, ref checkpoint.Ref) string { return job + "/" + pinDir + "/" + ref.String() }
