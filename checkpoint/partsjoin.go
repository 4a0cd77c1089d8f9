package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// JoinParts makes one manifest of all nodes' parts, once they are there: from then on the checkpoint is complete on the nodes' own disks. A file that several nodes have written
// counts once if its bytes are the same, else there is no checkpoint (ErrConflict, with the name and both nodes). It is safe to repeat, and from several places at once. Errors:
// ErrIncomplete (with the nodes that lack), else as of CommitFiles.
func (s *Store) JoinParts(ctx context.Context, ref Ref) (Manifest, error) {
	what := fmt.Sprintf("commit files of step %d", ref.Step)
	if done, err := s.exists(ref.String() + "/" + manifestName); err != nil || done {
		if err == nil {
			return s.committed(ref.String())
		}
		return Manifest{}, err
	}
	if m, _, err := s.joined(ref); !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	parts, err := s.LookAtParts(ctx, ref)
	if err != nil {
		return Manifest{}, err
	}
	if missing := parts.Missing(); parts.Count == 0 || len(missing) > 0 { // of a gang of which nobody has begun there is no count
		return Manifest{}, s.blameFence(ctx, ref.Epoch, fmt.Errorf("%s: the parts of nodes %v of %d are missing%s: %w",
			what, missing[:min(len(missing), maxNamedRanks)], parts.Count, parts.why(), ErrIncomplete))
	}
	all := make([]FilesPart, parts.Count)
	for i := range all {
		if all[i], err = s.LoadPart(ref, i, parts.Count); err != nil {
			return Manifest{}, fmt.Errorf("%s: %w", what, err)
		}
	}
	m, err := joinParts(all)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", what, err)
	}
	data, err := s.encode(&m)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", what, err)
	}
	done, err := s.publish(partsOf(ref)+"/"+localName, data, func() error { return s.current(ctx, ref.Epoch, "commit") })
	if err == nil {
		err = s.fs.SyncDir(partsOf(ref))
	}
	if err != nil {
		return Manifest{}, s.blameFence(ctx, ref.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	if done {
		m, _, err = s.joined(ref)
	}
	return m, err
}

// why gives the first refusal in words.
func (p *Parts) why() string {
	for _, i := range p.Missing() {
		if p.Refused[i] != "" {
			return fmt.Sprintf(" (node %d says: %s)", i, p.Refused[i])
		}
	}
	return ""
}

// joinParts makes the manifest of all parts.
func joinParts(parts []FilesPart) (Manifest, error) {
	type place struct {
		file FileInfo
		node string
	}
	files := map[string]place{}
	m := parts[0].manifest()
	m.Files, m.Local = nil, true
	asked := false
	for i := range parts {
		h := &parts[i]
		if h.From != "" && !asked {
			asked = true
			m.Meta, m.Metrics, m.SavedMS = h.Meta, h.Metrics, h.SavedMS
		}
		if h.ChunkBytes != m.ChunkBytes {
			return m, fmt.Errorf("%w: nodes %s and %s sum chunks of %d and %d bytes", ErrInvalid, parts[0].Node, h.Node, m.ChunkBytes, h.ChunkBytes)
		}
		for _, f := range h.Files {
			had, twice := files[f.Name]
			if twice && (had.file.Bytes != f.Bytes || !slices.Equal(had.file.Chunks, f.Chunks)) {
				return m, fmt.Errorf("%w: %q of nodes %s and %s: let each rank name its own files, or write the same, and save again as a later step", ErrConflict, f.Name, had.node, h.Node)
			}
			if !twice {
				files[f.Name] = place{f, h.Node}
				m.Files = append(m.Files, f)
			}
		}
	}
	if len(m.Files) == 0 {
		return m, fmt.Errorf("%w: no node has written any file", ErrInvalid)
	}
	slices.SortFunc(m.Files, func(a, b FileInfo) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(m.Files); i++ { // a/b after a, perhaps with others such as a.b between
		for dir := path.Dir(m.Files[i].Name); dir != "."; dir = path.Dir(dir) {
			if f, is := files[dir]; is {
				return m, fmt.Errorf("%w: %q is a file of node %s and a directory of node %s", ErrConflict, dir, f.node, files[m.Files[i].Name].node)
			}
		}
	}
	return m, nil
}

// joined gives the manifest of a checkpoint whose parts are all there, and its file.
func (s *Store) joined(ref Ref) (Manifest, []byte, error) {
	name := partsOf(ref) + "/" + localName
	data, err := s.readSmall(name)
	if err != nil {
		return Manifest{}, nil, err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return Manifest{}, nil, corrupt(name, -1, "a manifest", err.Error())
	}
	if m.Dir = m.Ref().String(); m.Job != s.job || m.Ref() != ref || m.WorldSize != 0 {
		return Manifest{}, nil, corrupt(name, -1, s.job+", "+ref.String(), m.Job+", "+m.Dir)
	}
	m.Local = true
	return m, data, s.authenticate(name, data)
}

// SettleParts commits a joined checkpoint if the files of all parts are in the job's directory: the rename of the manifest is the commit, with all the rules of CommitFiles. Otherwise
// the error is ErrIncomplete, with the number of a node whose part lacks. It is safe to repeat, and to do from several places at once.
func (s *Store) SettleParts(ctx context.Context, ref Ref) (Manifest, []int, error) {
	what := fmt.Sprintf("settle %s", ref)
	m, manifest, parts, err := s.drainable(ctx, ref)
	if parts.Complete {
		m, err = s.committed(ref.String())
		return m, nil, err
	}
	if err != nil {
		return m, nil, s.blameFence(ctx, ref.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	for i := range parts.Count {
		drained, err := s.exists(partsOf(ref) + "/" + drainedPart(i, parts.Count, manifest))
		if err != nil {
			return m, nil, err
		}
		if drained {
			continue
		}
		p, err := s.LoadPart(ref, i, parts.Count)
		if err != nil || len(p.Files) > 0 { // one is enough to know: to read all would be much for a large gang
			return m, []int{i}, cmp.Or(err, fmt.Errorf("%s: files of node %d of %d have not come: %w", what, i, parts.Count, ErrIncomplete))
		}
	}
	m.Local = false
	if m, err = s.settleParts(ctx, m, manifest); err != nil {
		err = s.blameFence(ctx, ref.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	return m, nil, err
}

func (s *Store) settleParts(ctx context.Context, m Manifest, manifest []byte) (Manifest, error) {
	if err := s.current(ctx, m.Epoch, "settle"); err != nil {
		return m, err
	}
	// First what is in place: of two settlers one has moved it, and a drainer that came late may have begun a directory of the old name again.
	sizes, err := s.treeSizes(m.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	if err == nil && sameSizes(sizes, &m) {
		err = s.fs.SyncDir(".")
	} else {
		err = s.moveGathered(ctx, gatheredName(m.Ref(), manifest), &m)
	}
	if errors.Is(err, ErrCommitted) {
		return s.committed(m.Dir)
	}
	if err != nil {
		return m, err
	}
	return s.finishCommit(ctx, &m, manifest)
}

// moveGathered moves the files that were brought together to their place. ErrCommitted: somebody has committed it just now.
func (s *Store) moveGathered(ctx context.Context, from string, m *Manifest) error {
	sizes, err := s.dropArriving(from, m)
	if err == nil && !sameSizes(sizes, m) {
		return corrupt(from, -1, fmt.Sprintf("the %d files of the manifest", len(m.Files)), fmt.Sprintf("%d files", len(sizes)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	done, err := s.place(ctx, from, m.Dir)
	if done {
		return ErrCommitted
	}
	if err != nil {
		return err
	}
	if sizes, err = s.treeSizes(m.Dir); err == nil && !sameSizes(sizes, m) {
		err = corrupt(m.Dir, -1, fmt.Sprintf("the %d files of the manifest", len(m.Files)), fmt.Sprintf("%d files", len(sizes)))
	}
	return err
}

func sameSizes(sizes map[string]int64, m *Manifest) bool {
	for _, f := range m.Files {
		if size, ok := sizes[f.Name]; !ok || size != f.Bytes {
			return false
		}
	}
	return len(sizes) == len(m.Files)
}
