package pusher

import (
	"slices"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
)

// collect removes the job's copies that need not stay, whichever agent has made them: what is in the bucket decides. It fails alone: the next copy's
// turn does the rest.
func (p *Pusher) collect(job Job, store *checkpoint.Store, name string) {
	if job.Stay.Keep < 1 {
		return
	}
	log := p.cfg.Log.With("job", job.Key.Job)
	pinned, err := store.Pinned(p.ctx)
	var out checkpoint.Collected
	if err == nil {
		r := checkpoint.CollectRequest{Keep: job.Stay.Keep, Every: job.Stay.Every, Best: job.Stay.Best, Now: p.cfg.Clock()}
		out, err = remote.Collect(p.ctx, p.cfg.Bucket, name, r, pinned)
	}
	for _, s := range out.Skipped {
		log.Warn("a copy in the object store is damaged", "checkpoint", s.Ref, "err", s.Err)
	}
	if len(out.Removed) > 0 {
		log.Info("older copies are removed from the object store", "removed", slices.Sorted(slices.Values(out.Removed)), "stay", len(out.Kept))
	}
	if err != nil && p.ctx.Err() == nil {
		log.Warn("older copies are not removed from the object store, the next copy's turn does it", "err", err)
	}
}
