package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// A checkpoint that refers to an earlier one keeps it from being removed. What it refers to is told by empty files in its own directory,
// so that this is known before the manifest is, and goes when the directory does:
//
//	step-0000000120.epoch-3/uses-step-0000000100.epoch-3
//
// The writer puts that file first and then looks whether the earlier checkpoint is there; who removes one takes it out of sight first
// and then looks for such files, and puts it back if there is one. So one of the two sees the other.

// use notes that the checkpoint in the directory user refers to source, and says whether it can: source is complete, and nobody has
// found damage in it. Ranks of a step share the note, so it stays even where it turns out to be of no use.
func (s *Store) use(user string, source Ref) (bool, error) {
	name := user + "/" + usesPrefix + source.String()
	if err := s.touch(name); err != nil {
		return false, err
	}
	dir, err := s.find(source)
	if errors.Is(err, ErrNone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	bad, err := s.exists(dir + "/" + damagedName)
	return !bad, err
}

// touch makes an empty file, durably.
func (s *Store) touch(name string) error {
	f, err := s.fs.Create(name, false)
	if err == nil {
		err = errors.Join(f.Close(), s.fs.SyncDir(path.Dir(name)))
	}
	if err != nil {
		return wrapWrite(name, 0, err)
	}
	return nil
}

// used gives the directories that refer to each earlier checkpoint. Complete, half-written and sealed ones count, and such as are being
// removed as long as they may be put back.
func (s *Store) used() (map[Ref][]string, error) {
	entries, err := s.fs.ReadDir(".")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	users := map[Ref][]string{}
	for _, e := range entries {
		base := strings.TrimSuffix(strings.TrimSuffix(e.Name, deadSuffix), sealedSuffix)
		own, err := ParseRef(base)
		if err != nil || !e.IsDir {
			continue
		}
		names, err := s.namesWherever(e.Name, base)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			of, ok := strings.CutPrefix(name, usesPrefix)
			if ref, err := ParseRef(of); ok && err == nil && ref != own {
				users[ref] = append(users[ref], e.Name)
			}
		}
	}
	return users, nil
}

// namesWherever lists a checkpoint's directory, which may be renamed between its finding and now. One whose manifest is gone while
// it is being removed will not be put back, and counts as empty.
func (s *Store) namesWherever(found, base string) ([]string, error) {
	for _, dir := range []string{found, base, base + deadSuffix, base + sealedSuffix, base} {
		entries, err := s.fs.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		names := make([]string, 0, len(entries))
		whole := !strings.HasSuffix(dir, deadSuffix)
		for _, e := range entries {
			names = append(names, e.Name)
			whole = whole || e.Name == manifestName
		}
		if !whole {
			return nil, nil
		}
		return names, nil
	}
	return nil, nil
}

// userOf says which directory refers to a checkpoint, "" if none.
func (s *Store) userOf(source Ref) (string, error) {
	users, err := s.used()
	if err != nil || len(users[source]) == 0 {
		return "", err
	}
	return users[source][0], nil
}

// distrust notes in a checkpoint's directory that one of its shards is damaged, so that no save refers to it any more, and gives
// err back. Where it can not be noted, as on storage that can only be read, nothing saves either.
func (s *Store) distrust(b blob, at string, err error) error {
	if damaged(err) && (b.shard != nil || b.from != nil) {
		if there, e := s.exists(path.Dir(at) + "/" + damagedName); e == nil && !there {
			_ = s.touch(path.Dir(at) + "/" + damagedName) // the damage is what is told
		}
	}
	return err
}

// Distrust notes that a checkpoint is damaged, whoever has found it: nothing new refers to it.
func (s *Store) Distrust(ref Ref) {
	name := ref.String() + "/" + damagedName
	if there, err := s.exists(name); err == nil && !there {
		_ = s.touch(name) // the damage is what is told
	}
}
