package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Files of a gang on several nodes: each node's programs write on the node's own disk, in a directory of the same name, and each node's share of a
// step is a part. What is small lies in the job's directory, parts/CHECKPOINT/, from the start:
//
//	part-0001-of-0002.json        what node 1 of 2 has, durable on its disk; final once it is there
//	refused-0001-of-0002          why there is none yet, in words
//	LOCAL.json                    the manifest of the whole, once all parts are there and agree
//	held-0001-of-0002-NODE        the address of an agent that has the part
//	drained-0001-of-0002.DIGEST   its files are in the directory where those of the manifest of that digest are brought together
//
// Settling moves that directory to the checkpoint's place, and LOCAL.json, byte for byte, becomes the manifest there: the commit.
const (
	partsDir       = "parts"
	partFormat     = "gangline-part"
	nodePartPrefix = "part-"
	refusedPrefix  = "refused-"
	drainedPrefix  = "drained-"
	gatheredPrefix = "tmp-drain-parts-"
	// maxRefusal bounds the words of a refusal.
	maxRefusal = 2048
)

// ErrConflict says that nodes have written different bytes to a file of the same name. No later try of that step can mend it.
var ErrConflict = errors.New("nodes have written different files of the same name")

// FilesPart is what one node has of a checkpoint of files.
type FilesPart struct {
	Job        string `json:"job"`
	Epoch      uint64 `json:"epoch"`
	Step       uint64 `json:"step"`
	Index      int    `json:"index"` // the node's number in the gang, from 0
	Count      int    `json:"count"` // of nodes
	Node       string `json:"node"`  // by which people know it
	ChunkBytes int64  `json:"chunk_bytes"`
	// From is the directory that the program has named; "": nobody has asked for the commit on this node, whose part follows another's.
	From    string             `json:"from,omitempty"`
	Meta    map[string]string  `json:"meta,omitempty"` // with From, as in FilesCommit
	Metrics map[string]float64 `json:"metrics,omitempty"`
	SavedMS int64              `json:"saved_unix_ms,omitempty"`
	Files   []FileInfo         `json:"files,omitempty"` // none: its programs have written nothing
}

// Ref names the checkpoint.
func (p *FilesPart) Ref() Ref { return Ref{Epoch: p.Epoch, Step: p.Step} }

// Bytes gives the size of its files.
func (p *FilesPart) Bytes() int64 {
	n := int64(0)
	for i := range p.Files {
		n += p.Files[i].Bytes
	}
	return n
}

// PartDir names the directory in which node index of count keeps its part, on its own disk.
func PartDir(ref Ref, index, count int) string { return ref.String() + "." + partName(index, count) }

// ParsePartDir reads what PartDir writes.
func ParsePartDir(name string) (ref Ref, index, count int, ok bool) {
	dir, part, found := strings.Cut(name, "."+nodePartPrefix)
	ref, err := ParseRef(dir)
	if n, serr := fmt.Sscanf(part, "%d-of-%d", &index, &count); !found || err != nil || serr != nil || n != 2 || PartDir(ref, index, count) != name {
		return Ref{}, 0, 0, false
	}
	return ref, index, count, true
}

func partName(index, count int) string { return nodePartPrefix + partOf(index, count) }

func partOf(index, count int) string { return fmt.Sprintf("%04d-of-%04d", index, count) }

func partsOf(ref Ref) string { return partsDir + "/" + ref.String() }

// PartCommit names one node's part of the files to commit.
type PartCommit struct {
	FilesCommit         // From is in the node's own directory; Meta, Metrics and SavedAt count if Asked
	Index, Count int    // the node's number in the gang, and of how many
	Node         string // by which people know it
	// Asked says that the commit was asked for here; without it the part follows another node's. Empty says that this node has no files: From is not looked at.
	Asked, Empty bool
}

// CommitPart makes one node's part of a checkpoint: near is the Store of the node's own disk, in which From is moved to PartDir, made durable and summed; then the part is
// put into the job's directory, s, where it is final. It is safe to repeat, and to call from several processes at once. The checkpoint is committed by JoinParts, DrainPart and
// SettleParts. Errors: as of CommitFiles.
func (s *Store) CommitPart(ctx context.Context, near *Store, r PartCommit) (FilesPart, error) {
	ref := Ref{Epoch: r.Epoch, Step: r.Step}
	what := fmt.Sprintf("commit the part of node %d of %d of step %d", r.Index, r.Count, r.Step)
	if r.Count < 1 || r.Count > MaxWorldSize || r.Index < 0 || r.Index >= r.Count || len(r.Node) > MaxNameBytes {
		return FilesPart{}, fmt.Errorf("%w: %s", ErrInvalid, what)
	}
	err := checkIdentity(s.job, r.Epoch, 1, s.chunkBytes)
	if err == nil {
		err = s.current(ctx, r.Epoch, what)
	}
	if err != nil {
		return FilesPart{}, fmt.Errorf("%s: %w", what, err)
	}
	p, err := s.commitPart(ctx, near, ref, r)
	if err != nil {
		return FilesPart{}, s.blameFence(ctx, r.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	return p, nil
}

// commitPart: 1. what is final already, 2. the directory at its place and its files durable and summed, 3. the part in the job's directory.
func (s *Store) commitPart(ctx context.Context, near *Store, ref Ref, r PartCommit) (FilesPart, error) {
	dir, name := PartDir(ref, r.Index, r.Count), partsOf(ref)+"/"+partName(r.Index, r.Count)+".json"
	done, err := s.exists(ref.String() + "/" + manifestName)
	if err != nil {
		return FilesPart{}, err
	}
	p, err := s.loadPart(name)
	if err == nil || done {
		return p, near.lateFiles(r, ref, err)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return FilesPart{}, err
	}
	p = FilesPart{Job: s.job, Epoch: r.Epoch, Step: r.Step, Index: r.Index, Count: r.Count, Node: r.Node, ChunkBytes: near.chunkBytes}
	if r.Asked {
		p.From, p.Meta, p.Metrics, p.SavedMS = r.From, r.Meta, r.Metrics, millis(r.SavedAt)
	}
	if !r.Empty {
		if p.Files, err = near.placePart(ctx, r.From, dir); err != nil {
			return FilesPart{}, err
		}
	}
	if err := p.check(); err != nil {
		return FilesPart{}, err
	}
	data, err := seal(partFormat, &p, s.key)
	if err == nil {
		err = s.makeParts(ref)
	}
	if err != nil {
		return FilesPart{}, err
	}
	done, err = s.publish(name, data, func() error { return s.current(ctx, r.Epoch, "commit a part") })
	if err == nil {
		err = s.fs.SyncDir(partsOf(ref))
	}
	if err == nil && done {
		p, err = s.loadPart(name)
	}
	if err == nil {
		_ = s.fs.Remove(partsOf(ref) + "/" + refusedPrefix + partOf(r.Index, r.Count)) // there may be none
	}
	return p, err
}

// lateFiles refuses new files of a step of which the part is final.
func (s *Store) lateFiles(r PartCommit, ref Ref, err error) error {
	if !r.Empty && checkFrom(r.From) == nil {
		if files, lerr := s.fs.ReadDir(r.From); lerr == nil && len(files) > 0 {
			return fmt.Errorf("%s: %w: commit %s as a later step", ref, ErrCommitted, r.From)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is complete, and its parts have been swept away
	}
	return err
}

// placePart moves a directory to a part's place, makes its files durable and sums them.
func (s *Store) placePart(ctx context.Context, from, dir string) ([]FileInfo, error) {
	if _, err := s.place(ctx, from, dir); err != nil {
		return nil, err
	}
	files, err := s.sumTree(ctx, dir)
	if err != nil {
		return nil, err
	}
	after, err := s.treeSizes(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if size, ok := after[f.Name]; !ok || size != f.Bytes || len(after) != len(files) {
			return nil, fmt.Errorf("%w: files in %s, such as %q, changed while they were summed: commit once the program has closed them", ErrInvalid, dir, f.Name)
		}
	}
	return files, nil
}

// check says what is wrong with a part.
func (p *FilesPart) check() error {
	if p.Count < 1 || p.Count > MaxWorldSize || p.Index < 0 || p.Index >= p.Count {
		return fmt.Errorf("%w: part %d of %d", ErrInvalid, p.Index, p.Count)
	}
	if len(p.Files) == 0 {
		return checkIdentity(p.Job, p.Epoch, 1, p.ChunkBytes)
	}
	m := p.manifest()
	return m.checkFiles()
}

// manifest is the whole as if this part were all of it.
func (p *FilesPart) manifest() Manifest {
	return Manifest{Job: p.Job, Epoch: p.Epoch, Step: p.Step, ChunkBytes: p.ChunkBytes, Shards: []ShardInfo{}, Files: p.Files, Dir: p.Ref().String()}
}

func (s *Store) makeParts(ref Ref) error {
	for _, dir := range []string{partsDir, partsOf(ref)} {
		if err := s.fs.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return wrapWrite(dir, 0, err)
		}
	}
	return errors.Join(s.fs.SyncDir("."), s.fs.SyncDir(partsDir))
}

func (s *Store) loadPart(name string) (FilesPart, error) {
	data, err := s.readSmall(name)
	if err != nil {
		return FilesPart{}, err
	}
	var p FilesPart
	if _, err := unseal(partFormat, data, &p); err != nil {
		return FilesPart{}, corrupt(name, -1, "a part of a checkpoint of files", err.Error())
	}
	if err := p.check(); err != nil {
		return FilesPart{}, corrupt(name, -1, "a part of a checkpoint of files", err.Error())
	}
	if want := partsOf(p.Ref()) + "/" + partName(p.Index, p.Count) + ".json"; p.Job != s.job || name != want {
		return FilesPart{}, corrupt(name, -1, s.job+", "+name, p.Job+", "+want)
	}
	return p, s.authenticate(name, data)
}

// Parts is how far a checkpoint of files of several nodes is.
type Parts struct {
	Ref   Ref
	Count int   // of nodes; 0: nobody has begun
	Have  []int // the numbers of those whose parts are there, in order
	// Drained are the numbers of those whose files are in the job's directory, in order. A part without files need not be among them.
	Drained []int
	// Refused says, by number, why a node has no part.
	Refused map[int]string
	// Joined says that all parts are there and agree; Complete, that the checkpoint is committed.
	Joined, Complete bool
}

// Missing gives the numbers of the nodes whose parts are not there.
func (p *Parts) Missing() []int {
	var out []int
	for i := range p.Count {
		if !slices.Contains(p.Have, i) {
			out = append(out, i)
		}
	}
	return out
}

// LookAtParts says how far a checkpoint is, by names alone: what is in the parts is not read. Errors: *CorruptError, the file system's.
func (s *Store) LookAtParts(ctx context.Context, ref Ref) (Parts, error) {
	out := Parts{Ref: ref, Refused: map[int]string{}}
	if err := ctx.Err(); err != nil {
		return out, err
	}
	var err error
	if out.Complete, err = s.exists(ref.String() + "/" + manifestName); err != nil {
		return out, err
	}
	names, err := s.names(partsOf(ref))
	if err != nil {
		return out, err
	}
	for _, name := range names {
		var index, count int
		if n, err := fmt.Sscanf(name, refusedPrefix+"%d-of-%d", &index, &count); err == nil && n == 2 && name == refusedPrefix+partOf(index, count) {
			if text, err := s.readSmall(partsOf(ref) + "/" + name); err == nil {
				out.Refused[index] = string(text[:min(len(text), maxRefusal)])
			}
		}
		out.Joined = out.Joined || name == localName
		if n, err := fmt.Sscanf(name, drainedPrefix+"%d-of-%d.", &index, &count); err == nil && n == 2 && strings.HasPrefix(name, drainedPrefix+partOf(index, count)+".") {
			out.Drained = append(out.Drained, index)
		}
		if n, err := fmt.Sscanf(name, nodePartPrefix+"%d-of-%d", &index, &count); err != nil || n != 2 || name != partName(index, count)+".json" {
			continue
		}
		if out.Count != 0 && out.Count != count || index < 0 || index >= count {
			return out, corrupt(partsOf(ref), -1, fmt.Sprintf("parts of %d nodes", out.Count), name)
		}
		out.Count = count
		out.Have = append(out.Have, index)
	}
	slices.Sort(out.Have)
	slices.Sort(out.Drained)
	out.Drained = slices.Compact(out.Drained)
	return out, nil
}

// LoadPart gives one node's part. Not there: fs.ErrNotExist.
func (s *Store) LoadPart(ref Ref, index, count int) (FilesPart, error) {
	return s.loadPart(partsOf(ref) + "/" + partName(index, count) + ".json")
}

// AskedPart gives the part of a node on which the commit was asked for, the first by number: its words count. ErrIncomplete: there is none yet.
func (s *Store) AskedPart(ctx context.Context, p Parts) (FilesPart, error) {
	for _, i := range p.Have {
		if err := ctx.Err(); err != nil {
			return FilesPart{}, err
		}
		if part, err := s.LoadPart(p.Ref, i, p.Count); err != nil || part.From != "" {
			return part, err
		}
	}
	return FilesPart{}, fmt.Errorf("%s: nobody has asked for it: %w", p.Ref, ErrIncomplete)
}

// RefusePart tells the other nodes why this one has no part yet.
func (s *Store) RefusePart(ref Ref, index, count int, why string) error {
	name := partsOf(ref) + "/" + refusedPrefix + partOf(index, count)
	if old, err := s.readSmall(name); err == nil && string(old) == why {
		return nil
	}
	return s.writeDurably(name, []byte(why[:min(len(why), maxRefusal)]), nil)
}

// PartsOf lists the checkpoints of files of several nodes of which any part is in the job's directory, the newest first.
func (s *Store) PartsOf(ctx context.Context) ([]Ref, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	names, err := s.names(partsDir)
	if err != nil {
		return nil, err
	}
	var refs []Ref
	for _, name := range names {
		if ref, err := ParseRef(name); err == nil {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b Ref) int { return b.Compare(a) })
	return refs, nil
}
