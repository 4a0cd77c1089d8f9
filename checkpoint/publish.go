package checkpoint

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// newRenamer is an FS that can rename a file to a name that must be free (else fs.ErrExist), in one step. errors.ErrUnsupported: not this
// file system, as NFS.
type newRenamer interface{ RenameNew(from, to string) error }

// publish puts a checkpoint's manifest at its place: the commit. Several callers may do so for the same checkpoint at the same time, each by a
// temporary file of its own: one of them wins, and the others are told that it is done. Where the file system can not rename to a free
// name alone, callers within the same moment replace each other's, which describe the same files. before runs just before the rename and can stop it.
func (s *Store) publish(name string, data []byte, before func() error) (done bool, err error) {
	temp := name + "." + rand.Text()[:10] + tempSuffix
	if err := s.writeTemp(temp, data); err != nil {
		return false, s.discard(temp, wrapWrite(name, int64(len(data)), err))
	}
	if done, err = s.exists(name); err == nil && !done {
		if err := before(); err != nil {
			return false, s.discard(temp, err)
		}
		err = s.renameNew(temp, name)
	}
	switch {
	case err == nil && !done:
		return false, nil
	case errors.Is(err, fs.ErrExist):
		done, err = true, nil
	case errors.Is(err, fs.ErrNotExist): // the winner has cleaned up after itself, or the directory has moved
		if there, e := s.exists(name); e == nil && there {
			return true, nil
		}
	}
	if err != nil {
		err = fmt.Errorf("write %s: %w", name, err)
	}
	return done, s.discard(temp, err)
}

func (s *Store) renameNew(from, to string) error {
	if r, ok := s.fs.(newRenamer); ok {
		if err := r.RenameNew(from, to); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return s.fs.Rename(from, to)
}

// tidy takes away what a complete checkpoint's directory has no use for any more: other committers' temporary files, notes of
// references that came to nothing. What stays takes a little room, and may hold an earlier checkpoint for longer than needed.
func (s *Store) tidy(m *Manifest) {
	names, err := s.names(m.Dir)
	if err != nil {
		return
	}
	refs := map[string]bool{}
	for _, r := range m.Refs() {
		refs[usesPrefix+r.String()] = true
	}
	for _, name := range names {
		temp := name != manifestName && ofManifest(name) || m.WorldSize > 0 && ofTiers(name)
		if temp || strings.HasPrefix(name, usesPrefix) && m.WorldSize > 0 && !refs[name] {
			_ = s.fs.Remove(m.Dir + "/" + name)
		}
	}
}

// ofManifest says whether a file in a checkpoint's directory is its manifest, or was on the way to become it.
func ofManifest(name string) bool {
	return name == manifestName || strings.HasPrefix(name, manifestName+".") && strings.HasSuffix(name, tempSuffix)
}
