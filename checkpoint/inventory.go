package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Found is one checkpoint as it lies there, complete or not.
type Found struct {
	Ref      Ref
	Dir      string
	Complete bool     // committed; Err says whether its manifest can be used
	Local    bool     // not Complete: all ranks have saved it, some of them on their nodes' own disks alone so far
	Sealed   bool     // of an epoch that is over; nobody can complete it
	Pinned   bool     // Store.Pin
	Reader   string   // somebody reads it, and who; empty: nobody
	Users    []string // directories of later checkpoints that refer to it, and keep it
	// Manifest is set if Complete and Err is nil. The bytes of the files have not been read.
	Manifest *Manifest
	Err      error
}

// Inventory lists all checkpoints, the preferred first, for people. It reads manifests and no more. A lease counts if it lasts beyond now.
func (s *Store) Inventory(ctx context.Context, now time.Time) ([]Found, error) {
	found, _, err := s.folders()
	if err != nil {
		return nil, err
	}
	held, err := s.held(now)
	if err != nil {
		return nil, err
	}
	pins, err := s.names(pinDir)
	if err != nil {
		return nil, err
	}
	users, err := s.used()
	if err != nil {
		return nil, err
	}
	out := make([]Found, 0, len(found))
	for _, f := range found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one := Found{Ref: f.ref, Dir: f.name, Complete: f.complete, Sealed: f.sealed, Pinned: slices.Contains(pins, f.ref.String()), Users: users[f.ref]}
		if why, ok := strings.CutPrefix(held[f.ref], "it is being read by "); ok {
			one.Reader = why
		}
		if !f.complete && !f.sealed {
			if one.Local, err = s.exists(f.name + "/" + localName); err != nil {
				return nil, err
			}
		}
		if f.complete {
			if m, err := s.load(f.name); err == nil {
				one.Manifest = &m
			} else {
				one.Err = err
			}
		}
		out = append(out, one)
	}
	waiting, err := s.WaitingParts(ctx)
	if err != nil {
		return nil, err
	}
	for _, ref := range waiting {
		if i := slices.IndexFunc(out, func(f Found) bool { return f.Ref == ref }); i >= 0 {
			out[i].Local = true // on its way to its place
			continue
		}
		out = append(out, Found{Ref: ref, Dir: ref.String(), Local: true})
	}
	slices.SortStableFunc(out, func(a, b Found) int { return b.Ref.Compare(a.Ref) })
	return out, nil
}

// RemoveRequest names a checkpoint to remove.
type RemoveRequest struct {
	Ref Ref
	// Force removes it though nothing newer is there, or though it is pinned. What is being read, or referred to, stays all the same.
	Force bool
	// Now is the time by which leases have run out; the zero time lets none run out.
	Now time.Time
}

// Remove removes one checkpoint, or what is left of one of an epoch that is over. Without Force it refuses the newest complete
// checkpoint of all (ErrNewest) and pinned ones (ErrInUse); it always refuses one that is being read, or that another one refers to (ErrInUse), and a half-written
// one of the current epoch (ErrIncomplete), which ranks may be writing. A missing one gives ErrNone.
func (s *Store) Remove(ctx context.Context, r RemoveRequest) error {
	what := fmt.Sprintf("remove %s", r.Ref)
	found, _, err := s.folders()
	if err != nil {
		return err
	}
	epoch, err := s.Epoch(ctx)
	if err != nil {
		return err
	}
	newest := true
	for _, f := range found {
		if f.ref != r.Ref {
			newest = newest && !f.complete
			continue
		}
		var out Collected
		switch {
		case !f.complete && f.ref.Epoch >= epoch:
			return fmt.Errorf("%s: epoch %d may be writing it: %w", what, f.ref.Epoch, ErrIncomplete)
		case !f.complete:
			if user, uerr := s.userOf(f.ref); uerr != nil || user != "" {
				return errors.Join(uerr, fmt.Errorf("%s: %s refers to it: remove that first: %w", what, user, ErrInUse))
			}
			err = s.removeTree(ctx, f.name, &out)
		case newest && !r.Force:
			return fmt.Errorf("%s: %w: the job would start from an older one, or from nothing: say that you mean it", what, ErrNewest)
		default:
			// Looked at first, so that a refusal does not take it out of sight for a moment.
			if user, err := s.userOf(f.ref); err != nil || user != "" {
				return errors.Join(err, fmt.Errorf("%s: %s refers to it: remove that first: %w", what, user, ErrInUse))
			}
			if r.Force {
				if err := s.Unpin(ctx, r.Ref); err != nil {
					return err
				}
			}
			err = s.removeComplete(ctx, f, r.Now, &out)
		}
		if err != nil {
			return err
		}
		return s.fs.SyncDir(".")
	}
	return fmt.Errorf("%s: %w", what, ErrNone)
}

// JobOf gives the name of the job whose checkpoints a directory holds, from the first manifest that can be read; ErrNone if there is
// none. It is for people who come with a directory alone; a job knows its own name.
func JobOf(fsys FS) (string, error) {
	s := &Store{fs: fsys}
	found, _, err := s.folders()
	if err != nil {
		return "", err
	}
	var bad error
	for _, f := range found {
		name := f.name + "/" + manifestName
		if !f.complete {
			name = f.name + "/" + localName
			if there, err := s.exists(name); err != nil || !there {
				continue
			}
		}
		data, err := s.readSmall(name)
		if err != nil {
			bad = err
			continue
		}
		var m struct {
			Body struct {
				Job string `json:"job"`
			} `json:"body"`
		}
		if err := json.Unmarshal(data, &m); err != nil || m.Body.Job == "" {
			bad = corrupt(name, -1, "a manifest", "no job's name")
			continue
		}
		return m.Body.Job, nil
	}
	if bad != nil && !errors.Is(bad, fs.ErrNotExist) {
		return "", bad
	}
	return "", ErrNone
}

// millis gives a time as Unix milliseconds, 0 for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Saved gives when the checkpoint was committed, the zero time if it does not tell.
func (m *Manifest) Saved() time.Time {
	if m.SavedMS == 0 {
		return time.Time{}
	}
	return time.UnixMilli(m.SavedMS)
}
