package pusher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
)

// lookAgain is how often a node looks whether another one has brought the checkpoint.
const lookAgain = time.Second

// Fetched says what a Fetch did.
type Fetched struct {
	// Ref is the checkpoint that was brought, or that another node has brought; the zero Ref: none was needed, or there is none.
	Ref checkpoint.Ref
	// Skipped are newer copies that are damaged.
	Skipped []error
}

// Fetch sees to it that a job's directory, which must be there, holds a complete checkpoint if the object store has one: if the directory holds none, the newest
// copy is brought, or where that is damaged the one before. bring is set on one node of the gang; the others wait until it is there. Errors: those of
// the bucket and the file system, the context's; checkpoint.ErrAllBad if no copy is whole. Then the job must not start from nothing.
func (p *Pusher) Fetch(ctx context.Context, job Job, bring bool) (Fetched, error) {
	var out Fetched
	store, err := open(job)
	if err != nil {
		return out, err
	}
	have := func() (bool, error) {
		refs, err := store.List(ctx)
		if len(refs) > 0 {
			out.Ref = refs[0]
		}
		return len(refs) > 0, err
	}
	if ok, err := have(); ok || err != nil {
		return Fetched{}, err
	}
	refs, err := remote.List(ctx, p.cfg.Bucket, job.Name)
	if err != nil {
		return out, fmt.Errorf("look for a copy of %s in %s: %w", job.Name, p.cfg.Address, err)
	}
	for !bring && len(refs) > 0 {
		if ok, err := have(); ok || err != nil {
			return out, err
		}
		if !p.cfg.Sleep(ctx, lookAgain) {
			return out, fmt.Errorf("wait until the gang's first node has brought %s from %s: %w", refs[0], p.cfg.Address, ctx.Err())
		}
	}
	for _, ref := range refs {
		_, err := remote.Pull(ctx, p.cfg.Bucket, store, job.Name, ref)
		var bad *checkpoint.CorruptError
		switch {
		case err == nil:
			out.Ref = ref
			return out, nil
		case !errors.As(err, &bad):
			return out, err
		}
		out.Skipped = append(out.Skipped, err)
	}
	if len(refs) > 0 {
		return out, fmt.Errorf("none of the %d copies of %s in %s is whole: %w", len(refs), job.Name, p.cfg.Address, checkpoint.ErrAllBad)
	}
	return out, nil
}
