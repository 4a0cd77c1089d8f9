package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// A checkpoint is held by a pin, which a person puts and takes away, or by a lease, which a reader takes and which runs out, so that
// a reader that died holds nothing for ever. Both are empty files whose names say all, as the fence's marks are.
//
//	pins/step-0000000120.epoch-3
//	leases/step-0000000120.epoch-3~1790000000~host-4711      until that Unix second, by whom

// MaxLease is the longest that one lease may last: a reader that needs longer takes another.
const MaxLease = 24 * time.Hour

// maxHolderBytes bounds the holder's name in a lease.
const maxHolderBytes = 100

// Pin keeps a complete checkpoint from Collect and Remove until Unpin. Pinning it again changes nothing. A missing one gives ErrNone.
func (s *Store) Pin(ctx context.Context, ref Ref) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.note(pinDir, ref.String()); err != nil {
		return fmt.Errorf("pin %s: %w", ref, err)
	}
	if _, err := s.find(ref); err != nil { // in this order: see removeComplete
		return errors.Join(fmt.Errorf("pin %s: %w", ref, err), s.Unpin(ctx, ref))
	}
	return nil
}

// Unpin takes a pin away. One that is not there is no error.
func (s *Store) Unpin(ctx context.Context, ref Ref) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.fs.Remove(pinDir + "/" + ref.String())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unpin %s: %w", ref, err)
	}
	return s.fs.SyncDir(pinDir)
}

// Pinned gives the checkpoints that are pinned, whether they are still here or not.
func (s *Store) Pinned(ctx context.Context) ([]Ref, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	names, err := s.names(pinDir)
	var refs []Ref
	for _, name := range names {
		if ref, err := ParseRef(name); err == nil {
			refs = append(refs, ref)
		}
	}
	return refs, err
}

// Lease keeps a complete checkpoint from Collect and Remove while it is read: until release is called, or the time until. holder
// tells people who reads. A missing checkpoint gives ErrNone. The clocks of the machines should agree to well within the lease.
func (s *Store) Lease(ctx context.Context, ref Ref, holder string, until time.Time) (release func() error, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '_'
	}, holder)
	name := fmt.Sprintf("%s~%d~%s", ref, until.Unix(), clean[:min(len(clean), maxHolderBytes)])
	if err := s.note(leaseDir, name); err != nil {
		return nil, fmt.Errorf("lease %s: %w", ref, err)
	}
	release = func() error {
		if err := s.fs.Remove(leaseDir + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("give back the lease of %s: %w", ref, err)
		}
		return nil
	}
	if _, err := s.find(ref); err != nil {
		return nil, errors.Join(fmt.Errorf("lease %s: %w", ref, err), release())
	}
	return release, nil
}

// note makes an empty file in one of our directories, and its name durable.
func (s *Store) note(dir, name string) error {
	if err := s.fs.Mkdir(dir); err == nil {
		if err := s.fs.SyncDir("."); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return wrapWrite(dir, 0, err)
	}
	f, err := s.fs.Create(dir+"/"+name, false)
	if err != nil {
		return wrapWrite(dir+"/"+name, 0, err)
	}
	if err := errors.Join(f.Close(), s.fs.SyncDir(dir)); err != nil {
		return wrapWrite(dir+"/"+name, 0, err)
	}
	return nil
}

// find gives the directory of a complete checkpoint, or ErrNone.
func (s *Store) find(ref Ref) (string, error) {
	for _, dir := range []string{ref.String(), ref.String() + sealedSuffix} {
		ok, err := s.exists(dir + "/" + manifestName)
		if ok || err != nil {
			return dir, err
		}
	}
	return "", ErrNone
}

// held says which checkpoints are pinned or leased, and by whom. Leases that have run out are removed. The zero time lets none run out.
func (s *Store) held(now time.Time) (map[Ref]string, error) {
	held := map[Ref]string{}
	leases, err := s.names(leaseDir)
	if err != nil {
		return nil, err
	}
	for _, name := range leases {
		parts := strings.SplitN(name, "~", 3)
		if len(parts) != 3 {
			continue
		}
		ref, err := ParseRef(parts[0])
		until, err2 := strconv.ParseInt(parts[1], 10, 64)
		if err != nil || err2 != nil {
			continue // not ours
		}
		if now.IsZero() || now.Unix() < until && until <= now.Add(MaxLease).Unix() {
			held[ref] = "it is being read by " + parts[2]
			continue
		}
		_ = s.fs.Remove(leaseDir + "/" + name) // where that fails, it lies there and holds nothing
	}
	pins, err := s.names(pinDir)
	if err != nil {
		return nil, err
	}
	for _, name := range pins {
		if ref, err := ParseRef(name); err == nil {
			held[ref] = "it is pinned"
		}
	}
	return held, nil
}

// names lists one of our directories, which may be missing.
func (s *Store) names(dir string) ([]string, error) {
	entries, err := s.fs.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names, nil
}
