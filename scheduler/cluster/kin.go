package cluster

import (
	"math/bits"
	"strconv"
	"time"
)

// owner tells the objects that a State has made since its last Snapshot, which
// nobody else can see, from those that snapshots may share with it.
type owner struct{ _ byte }

// mine returns the owner of what the state makes now.
func (s *State) mine() *owner {
	if s.own == nil {
		s.own = new(owner)
	}
	return s.own
}

// kin is the four degrees of likeness of jobs that are alike in all of them:
// the keys of their histories, the widest first. Jobs share it. The keys never
// change; the histories are filled in by the State that made it, which is the only
// one that has it, as long as it has taken no snapshot since.
type kin struct {
	keys    [4]string
	n       int
	by      *owner
	history [4]*History // which by may edit; nil: not looked up yet, or there is none
	outlook *outlook    // nil: it has none, see outlooks
	account *Account    // of the jobs' user in their queue, if its owner is by
}

// maxKins bounds the kins that a State finds again by their key.
const maxKins = 2 * MaxHistories

// name fills in the keys.
func (k *kin) name(spec *JobSpec, user string) {
	size := strconv.Itoa(int(spec.GPUs) * int(spec.Share()))
	k.keys, k.n = [4]string{"", "g\x00" + size, "q\x00" + spec.Queue + "\x00" + size}, 3
	if user != "" {
		k.keys[3], k.n = string(appendKin(nil, spec, user)), 4
	}
}

// appendKin appends the key of the narrowest degree.
func appendKin(b []byte, spec *JobSpec, user string) []byte {
	if user == "" {
		b = append(append(append(b, 'q', 0), spec.Queue...), 0)
		return strconv.AppendInt(b, int64(spec.GPUs)*int64(spec.Share()), 10)
	}
	b = append(append(append(b, 'u', 0), spec.Queue...), 0)
	b = append(append(b, user...), 0)
	for i := range len(spec.Name) { // the stem: without the numbers that tell runs of it apart
		if c := spec.Name[i]; c < '0' || c > '9' {
			b = append(b, c)
		}
	}
	b = strconv.AppendInt(append(b, 0), int64(spec.GPUs)*int64(spec.Share()), 10)
	return strconv.AppendInt(append(b, 0), int64(bits.Len64(uint64(spec.TimeLimit/time.Minute))), 10)
}

// kinOf returns the kin of a job, so that its histories can be edited. Only
// Apply may call it.
func (s *State) kinOf(j *Job) *kin {
	own, last := s.mine(), &s.lastKin
	if last.kin != nil && last.kin.by == own && last.spec == j.Spec && last.user == j.User {
		return last.kin
	}
	last.spec, last.user, last.kin = j.Spec, j.User, s.findKin(j)
	return last.kin
}

// lastKin is the kin that was asked for last: several things of one job are
// written down one after the other.
type lastKin struct {
	spec *JobSpec
	user string
	kin  *kin
}

// findKin is kinOf by the job's key.
func (s *State) findKin(j *Job) *kin {
	own := s.mine()
	s.kinKey = appendKin(s.kinKey[:0], j.Spec, j.User)
	k := s.kins[string(s.kinKey)]
	if k != nil {
		if k.by != own {
			k.by, k.history = own, [4]*History{}
		}
		return k
	}
	k = &kin{by: own}
	k.name(j.Spec, j.User)
	if s.kins == nil || len(s.kins) >= maxKins {
		s.kins = map[string]*kin{}
	}
	s.kins[k.keys[k.n-1]] = k
	return k
}

// knownKin is the kin of a job for who only reads.
func (s *State) knownKin(j *Job) *kin {
	if len(s.kins) > 0 {
		var scratch [256]byte
		if k := s.kins[string(appendKin(scratch[:0], j.Spec, j.User))]; k != nil {
			return k
		}
	}
	k := &kin{}
	k.name(j.Spec, j.User)
	return k
}

// ownHistories returns the histories of a kin by degree, to be edited. The kin
// must be of kinOf.
func (s *State) ownHistories(k *kin) *[4]*History {
	for i := range k.n {
		if k.history[i] == nil {
			k.history[i] = s.ownHistory(k, i)
		}
	}
	return &k.history
}

// ownHistory returns the history of a degree to be edited, made if there is
// none; nil: there are too many, the wider ones have to do.
func (s *State) ownHistory(k *kin, degree int) *History {
	h, known := s.histories.Get(k.keys[degree])
	switch {
	case !known && degree >= 2 && s.histories.Len() >= MaxHistories:
		return nil
	case !known:
		h = &History{by: k.by}
		s.histories.Set(k.keys[degree], h)
	case h.by != k.by:
		next := *h
		next.by = k.by
		h = &next
		s.histories.Set(k.keys[degree], h)
	}
	return h
}
