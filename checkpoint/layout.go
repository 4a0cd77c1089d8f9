package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// Names inside a job's checkpoint directory. See DESIGN.md for the picture.
const (
	manifestName = "MANIFEST.json"
	tempSuffix   = ".tmp"
	// sealedSuffix marks a directory of an older epoch that was not complete when a newer epoch began.
	sealedSuffix = ".sealed"
	// deadSuffix marks a complete checkpoint that is being removed.
	deadSuffix = ".dead"

	// usesPrefix begins the names of empty files in a checkpoint's directory, each of which tells of an earlier checkpoint that it refers to.
	usesPrefix = "uses-"
	// damagedName is an empty file in the directory of a checkpoint in which somebody has found damage: nothing new may refer to it.
	damagedName = "damaged"

	// localName is a manifest too, of a step whose shards are durable, some of them on nodes' own disks: see local.go.
	localName = "LOCAL.json"
	// localPrefix begins the names of empty files, each of which says that a rank's shard is on its node's disk: local-0002-of-0008.
	localPrefix = "local-"
	// heldPrefix begins the names of files that say which agents have a shard: held-SHARD-NODE.
	heldPrefix = "held-"
	// drainedMark is in the names of shards that were copied here and are not in place yet: SHARD.drained-DIGEST.
	drainedMark = ".drained-"

	fenceDir    = "fence"
	fencePrefix = "epoch-"

	pinDir   = "pins"
	leaseDir = "leases"
)

// Ref names a checkpoint of a job: the epoch that wrote it, and the step it holds.
type Ref struct {
	Epoch uint64
	Step  uint64
}

// Compare orders checkpoints by which one a resume prefers: a newer epoch first, then a later step. A newer epoch with
// an earlier step goes before an older epoch with a later one, because the newer epoch has chosen its
// past when it began; DESIGN.md says why.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Epoch, o.Epoch), cmp.Compare(r.Step, o.Step))
}

// String gives the name of the checkpoint's directory.
func (r Ref) String() string { return fmt.Sprintf("step-%010d.epoch-%d", r.Step, r.Epoch) }

// ParseRef reads what Ref.String writes.
func ParseRef(s string) (Ref, error) {
	step, epoch, ok := strings.Cut(s, ".epoch-")
	digits, isStep := strings.CutPrefix(step, "step-")
	if ok && isStep {
		var r Ref
		var err1, err2 error
		r.Step, err1 = strconv.ParseUint(digits, 10, 64)
		r.Epoch, err2 = strconv.ParseUint(epoch, 10, 64)
		if err1 == nil && err2 == nil && r.String() == s {
			return r, nil
		}
	}
	return Ref{}, fmt.Errorf("%w: %q is no checkpoint: it looks like %q", ErrInvalid, s, Ref{Step: 120, Epoch: 3})
}

func shardName(rank, worldSize int) string {
	return fmt.Sprintf("shard-%04d-of-%04d.glck", rank, worldSize)
}

func sidecarName(rank, worldSize int) string {
	return fmt.Sprintf("shard-%04d-of-%04d.json", rank, worldSize)
}

// folder is one checkpoint directory as found.
type folder struct {
	ref      Ref
	name     string
	sealed   bool
	complete bool // has a manifest; says nothing about what is in it
	whole    bool // stands for the whole copy on the node's own disk
}

// folders lists the checkpoint directories, the preferred first, and those that are being removed.
func (s *Store) folders() (found []folder, dead []string, err error) {
	entries, err := s.fs.ReadDir(".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list checkpoints: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir {
			continue
		}
		base, isDead := strings.CutSuffix(e.Name, deadSuffix)
		base, sealed := strings.CutSuffix(base, sealedSuffix)
		ref, err := ParseRef(base)
		if err != nil {
			continue // not ours
		}
		if isDead {
			dead = append(dead, e.Name)
			continue
		}
		complete, err := s.exists(e.Name + "/" + manifestName)
		if err != nil {
			return nil, nil, fmt.Errorf("list checkpoint %s: %w", e.Name, err)
		}
		found = append(found, folder{ref: ref, name: e.Name, sealed: sealed, complete: complete})
	}
	slices.SortStableFunc(found, func(a, b folder) int { return b.ref.Compare(a.ref) })
	return found, dead, nil
}

// exists says whether a file is there.
func (s *Store) exists(name string) (bool, error) {
	f, err := s.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}
