package checkpoint

import (
	"fmt"
	"slices"
)

// A whole copy of a checkpoint on the node's own disk is a directory like any other checkpoint's, with what it needs of earlier ones in it (FileNames,
// ReceiveRequest.Whole). The node's agent makes it before it starts the ranks, of the checkpoint that it would have them resume from, and has verified every byte
// of it. A reader still verifies what it reads, and goes to the job's directory for what is not good any more.

// withWhole puts the whole copy into what was found: before all that is of the past from which the agent has chosen it, behind what this epoch has saved since.
func (s *Store) withWhole(found []folder) []folder {
	if s.near == nil || s.near.whole == nil {
		return found
	}
	i := slices.IndexFunc(found, func(f folder) bool { return f.ref.Epoch < s.near.local.Epoch })
	if i < 0 {
		i = len(found)
	}
	return slices.Insert(slices.Clone(found), i, folder{ref: s.near.local.Resume, whole: true})
}

// takeWhole gives the checkpoint of which the agent has made a whole copy, and false if there is none to be used.
func (s *Store) takeWhole() (Manifest, bool) {
	if s.near == nil || s.near.whole == nil || s.near.local.Resume.Compare(s.notBefore) < 0 {
		return Manifest{}, false
	}
	m, err := s.near.whole.load(s.near.local.Resume.String())
	if err != nil || m.WorldSize == 0 { // the agent has said which it is; one of files is the program's own to read
		return Manifest{}, false
	}
	s.resumeFrom(m)
	return m, true
}

// openWhole opens a file of the whole copy.
func (s *Store) openWhole(m *Manifest, b *blob) (ReadFile, string, bool) {
	if s.near == nil || s.near.whole == nil || m.Ref() != s.near.local.Resume {
		return nil, "", false
	}
	f, err := s.near.whole.fs.Open(m.Ref().String() + "/" + b.name)
	if err != nil {
		return nil, "", false
	}
	if size, err := f.Size(); err != nil || size != b.bytes {
		_ = f.Close()
		return nil, "", false
	}
	far, of := *m, *b
	return &nearFile{near: f, open: func() (ReadFile, error) {
		f, _, err := s.withoutNear().open(&far, &of)
		return f, err
	}}, m.Dir + "/" + b.name, true
}

// Sums verifies chunks of a checkpoint's files, wherever they were read. It is safe for concurrent use.
type Sums struct {
	of    string
	files map[string]blob
}

// Sums gives the checksums of all files that FileNames names.
func (m *Manifest) Sums() *Sums {
	s := &Sums{of: m.Ref().String(), files: map[string]blob{}}
	for _, b := range m.blobs() {
		s.files[b.name] = b
	}
	return s
}

// Check says whether data are the bytes of a file's chunk that begins at a place: ErrInvalid for a place where none does, or for another length, *CorruptError
// for other bytes. Of files of earlier checkpoints only what belongs to this one can be told.
func (s *Sums) Check(name string, at int64, data []byte) error {
	b, ok := s.files[name]
	if !ok || at < 0 || at >= b.bytes || at%b.chunkBytes != 0 || int64(len(data)) != min(b.chunkBytes, b.bytes-at) {
		return fmt.Errorf("%w: %d bytes of %s of %s at %d are no chunk", ErrInvalid, len(data), name, s.of, at)
	}
	if want, ok := b.sum(int(at / b.chunkBytes)); ok {
		if got := sumOf(data); got != want {
			return corrupt(s.of+"/"+name, int(at/b.chunkBytes), "xxh3-128 "+want.String(), got.String())
		}
	}
	return nil
}
