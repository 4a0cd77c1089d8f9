package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// endUploadsAfter is how old an upload is that nobody completed when Collect ends it.
const endUploadsAfter = 24 * time.Hour

// survey is what a bucket holds of a job.
type survey struct {
	manifests map[checkpoint.Ref]checkpoint.Manifest // of complete checkpoints
	bad       map[checkpoint.Ref]error               // complete ones that cannot be used
	files     map[checkpoint.Ref][]Object            // below each checkpoint's prefix, the manifest left out
	sizes     map[string]int64                       // of all objects of the job
	held      map[checkpoint.Ref]string              // why it stays
	removing  map[checkpoint.Ref]string
	over      []string // notes that have run out
}

// look reads the notes first, then the rest: who puts a manifest gives its lease back only after that, so that one of the two is seen.
func look(ctx context.Context, b Bucket, job string, now time.Time) (*survey, error) {
	s := &survey{
		manifests: map[checkpoint.Ref]checkpoint.Manifest{}, bad: map[checkpoint.Ref]error{}, files: map[checkpoint.Ref][]Object{},
		sizes: map[string]int64{}, held: map[checkpoint.Ref]string{},
	}
	leases, over, err := notes(ctx, b, job, leaseDir, now)
	if err != nil {
		return nil, err
	}
	pins, _, err := notes(ctx, b, job, pinDir, now)
	if err != nil {
		return nil, err
	}
	for ref, who := range leases { // any order: into a map
		s.held[ref] = "it is in use by " + who
	}
	for ref := range pins { // any order: into a map
		s.held[ref] = "it is pinned"
	}
	s.over = over
	if s.removing, over, err = notes(ctx, b, job, removingDir, now); err != nil {
		return nil, err
	}
	s.over = append(s.over, over...)
	objects, err := b.List(ctx, job+"/")
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		s.sizes[o.Name] = o.Bytes
		dir, rest, _ := strings.Cut(strings.TrimPrefix(o.Name, job+"/"), "/")
		ref, err := checkpoint.ParseRef(dir)
		if err != nil {
			continue
		}
		if rest != manifestName {
			s.files[ref] = append(s.files[ref], o)
			continue
		}
		data, err := readAll(ctx, b, o.Name)
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		if m, err := checkpoint.ParseManifest(data); err != nil || m.Ref() != ref {
			s.bad[ref] = errors.Join(err, &checkpoint.CorruptError{Path: o.Name, Chunk: -1, Want: "a manifest of " + ref.String(), Got: "another"})
		} else {
			s.manifests[ref] = m
		}
	}
	for ref, m := range s.manifests { // any order: each by itself
		if err := s.whole(job, &m); err != nil {
			s.bad[ref] = err
		}
	}
	return s, nil
}

// whole says what lacks of a complete checkpoint. Content is not read: every chunk was verified as it went, and a pull verifies it again.
func (s *survey) whole(job string, m *checkpoint.Manifest) error {
	for _, f := range m.FileNames() {
		name := prefixOf(job, m.Ref()) + f.Name
		if m.OfEarlier(f.Name) {
			name = job + "/" + f.Name
		}
		if size, ok := s.sizes[name]; !ok || size != f.Size {
			return &checkpoint.CorruptError{Path: name, Chunk: -1, Want: fmt.Sprintf("%d bytes", f.Size), Got: fmt.Sprintf("%d, there: %t", size, ok)}
		}
	}
	return nil
}

// complete lists the complete checkpoints, the newest first.
func (s *survey) complete() []checkpoint.Ref {
	var refs []checkpoint.Ref
	for ref := range s.manifests { // any order: sorted below
		refs = append(refs, ref)
	}
	for ref := range s.bad { // likewise
		if _, twice := s.manifests[ref]; !twice {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b checkpoint.Ref) int { return b.Compare(a) })
	return refs
}

// Collect removes copies from the bucket as Store.Collect removes checkpoints from a directory: beyond the newest Keep that are whole, unless Every,
// Best, a pin or a lease keeps them, in the bucket or among pinned; files that a copy which stays refers to stay with it. Besides it removes what pushes that were cut short
// left, as far as it is older than the newest whole copy, and uploads that nobody completed within a day. It needs nothing but the bucket, so that it does not matter who has pushed. Epoch is not looked at: whoever
// calls it, the newest by (epoch, step) stay. What was cut short the next call goes on with. Errors: checkpoint.ErrInvalid, the context's, the bucket's.
func Collect(ctx context.Context, b Bucket, job string, r checkpoint.CollectRequest, pinned []checkpoint.Ref) (checkpoint.Collected, error) {
	var out checkpoint.Collected
	if r.Keep < 1 {
		return out, fmt.Errorf("%w: collect: keep %d checkpoints, want at least 1", checkpoint.ErrInvalid, r.Keep)
	}
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	s, err := look(ctx, b, job, r.Now)
	if err != nil {
		return out, fmt.Errorf("collect copies of %s: %w", job, err)
	}
	for _, ref := range pinned {
		s.held[ref] = "it is pinned"
	}
	doomed, newest := s.choose(r, &out)
	if r.DryRun {
		for _, ref := range doomed {
			out.Removed = append(out.Removed, ref.String())
		}
		return out, nil
	}
	var half []checkpoint.Ref
	for ref := range s.files { // any order: sorted below
		_, complete := s.manifests[ref]
		if s.bad[ref] == nil && !complete && ref.Compare(newest) < 0 {
			half = append(half, ref)
		}
	}
	slices.SortFunc(half, checkpoint.Ref.Compare)
	err = bury(ctx, b, job, r.Now, doomed, half, &out)
	if err == nil {
		err = b.Remove(ctx, s.over)
	}
	if e, ok := b.(interface {
		EndUploads(ctx context.Context, prefix string, before time.Time) error
	}); ok && err == nil {
		err = e.EndUploads(ctx, job+"/", r.Now.Add(-endUploadsAfter))
	}
	if err != nil {
		return out, fmt.Errorf("collect copies of %s: %w", job, err)
	}
	return out, nil
}

// choose decides which complete copies go. newest is the newest that is whole; where none is, none goes.
func (s *survey) choose(r checkpoint.CollectRequest, out *checkpoint.Collected) (doomed []checkpoint.Ref, newest checkpoint.Ref) {
	var old []checkpoint.Manifest
	good := 0
	for _, ref := range s.complete() {
		bad := s.bad[ref]
		if bad != nil {
			out.Skipped = append(out.Skipped, checkpoint.Skipped{Ref: ref, Dir: ref.String(), Err: bad})
		}
		switch {
		case bad == nil && good < r.Keep:
			if good++; good == 1 {
				newest = ref
			}
			out.Kept = append(out.Kept, ref)
		case bad == nil:
			old = append(old, s.manifests[ref])
		case good > 0:
			old = append(old, checkpoint.Manifest{Epoch: ref.Epoch, Step: ref.Step}) // without metrics
		}
	}
	keep := r.Retained(old)
	for i := range old {
		if ref := old[i].Ref(); keep[i] || s.held[ref] != "" {
			out.Kept = append(out.Kept, ref)
		} else {
			doomed = append(doomed, ref)
		}
	}
	slices.SortFunc(out.Kept, func(a, b checkpoint.Ref) int { return b.Compare(a) })
	return doomed, newest
}

// bury removes complete checkpoints and halves: 1. it says so, 2. looks who holds them, 3. takes the manifests away, so that no Pull sees half of one, 4. removes
// the files that nobody needs.
func bury(ctx context.Context, b Bucket, job string, now time.Time, doomed, half []checkpoint.Ref, out *checkpoint.Collected) (err error) {
	if len(doomed)+len(half) == 0 {
		return nil
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, removeWithin)
	defer cancel()
	var mine []string
	defer func() { err = errors.Join(err, b.Remove(context.WithoutCancel(outer), mine)) }()
	say := func(ref checkpoint.Ref) error {
		name := stamped(job, removingDir, ref, now.Add(removingFor))
		mine = append(mine, name)
		return b.PutNew(ctx, name, nil)
	}
	for _, ref := range slices.Concat(doomed, half) {
		if err := say(ref); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	s, err := look(ctx, b, job, now)
	if err != nil {
		return err
	}
	free := map[checkpoint.Ref]bool{} // whose files may go
	var manifests []string
	for _, ref := range doomed {
		if s.held[ref] != "" {
			out.Kept = append(out.Kept, ref)
			continue
		}
		free[ref] = true
		manifests = append(manifests, prefixOf(job, ref)+manifestName)
		out.Removed = append(out.Removed, ref.String())
	}
	for _, ref := range half {
		_, complete := s.manifests[ref]
		free[ref] = s.held[ref] == "" && !complete && s.bad[ref] == nil
	}
	needed, err := s.needed(job, free)
	if err != nil {
		return err
	}
	if err := b.Remove(ctx, manifests); err != nil {
		return err
	}
	var names []string
	for ref, files := range s.files { // any order: all of them go
		for _, o := range files {
			if free[ref] && !needed[o.Name] {
				names = append(names, o.Name)
			}
		}
	}
	return b.Remove(ctx, names)
}

// needed gives the files of other checkpoints that those which stay refer to. What a damaged manifest refers to cannot be known.
func (s *survey) needed(job string, free map[checkpoint.Ref]bool) (map[string]bool, error) {
	out := map[string]bool{}
	for ref, err := range s.bad { // any order: any will do
		if _, known := s.manifests[ref]; !known && !free[ref] {
			return nil, fmt.Errorf("what %s refers to cannot be known, so nothing is removed: %w", ref, err)
		}
	}
	for ref, m := range s.manifests { // any order: into a set
		if free[ref] {
			continue
		}
		for _, f := range m.FileNames() {
			if m.OfEarlier(f.Name) {
				out[job+"/"+f.Name] = true
			}
		}
	}
	return out, nil
}

// Remove removes a checkpoint from the bucket: its manifest first, so that no Pull sees half of it. A missing one is no error. Files that
// other checkpoints there refer to stay, until the last of those is removed. One that is pinned, read or just being pushed gives checkpoint.ErrInUse;
// force removes a pinned one.
func Remove(ctx context.Context, b Bucket, job string, ref checkpoint.Ref, force bool) error {
	if err := remove(ctx, b, job, ref, force); err != nil {
		return fmt.Errorf("remove %s of %s: %w", ref, job, err)
	}
	return nil
}

func remove(ctx context.Context, b Bucket, job string, ref checkpoint.Ref, force bool) error {
	now := time.Now()
	if force {
		if err := Unpin(ctx, b, job, ref); err != nil {
			return err
		}
	}
	var half []checkpoint.Ref // which it alone may have needed
	if data, err := readAll(ctx, b, prefixOf(job, ref)+manifestName); err == nil {
		if m, err := checkpoint.ParseManifest(data); err == nil {
			half = m.Refs()
		}
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	var out checkpoint.Collected
	if err := bury(ctx, b, job, now, []checkpoint.Ref{ref}, half, &out); err != nil {
		return err
	}
	if len(out.Kept) == 0 {
		return nil
	}
	s, err := look(ctx, b, job, now)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", s.held[ref], checkpoint.ErrInUse)
}
