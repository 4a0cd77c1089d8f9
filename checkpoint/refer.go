package checkpoint

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"
)

// DefaultReferenceShare is Config.ReferenceShare by default. An earlier checkpoint that is referred to stays on the storage, whole; at a
// third of the bytes that pays from three checkpoints on, and at a quarter the save is still a quarter shorter.
const DefaultReferenceShare = 0.25

// tensorMemo is what a save finds out of one tensor.
type tensorMemo struct {
	key    string
	sample Sum
	sum    Sum
	summed bool
	before known
	same   bool // as at the last save
}

// saving is one shard on its way: which tensors are written, and which are referred to.
type saving struct {
	store   *Store
	memos   []tensorMemo
	toSum   []int // tensors of which the sum is to be made while they are written
	refers  bool  // to a tensor
	differs bool  // a tensor is written as a difference
	tensors []Tensor
	reader  *Reader // of what is differed from; nil: nothing
}

// refer finds out which tensors have not changed since an earlier complete checkpoint, notes the reference, and lays the file out anew
// without them; and which are to be written as differences. Where nothing is gained, info stays as it was.
func (s *Store) refer(ctx context.Context, w *ShardWrite, info *ShardInfo) (*saving, error) {
	sv := &saving{store: s, tensors: w.Tensors}
	if s.referenceShare < 0 && s.delta == 0 {
		return sv, nil
	}
	info.Tensors = slices.Clone(info.Tensors) // an image keeps its own
	sv.recognise(s.lastSaved(w.Rank, w.WorldSize), info)
	own := Ref{Epoch: w.Epoch, Step: w.Step}
	looked := map[Ref]bool{}
	usable := func(p *place) (ok bool, err error) {
		ref := p.file.Ref()
		// A step that is written again, or after a later one, refers to earlier ones alone.
		if !s.sameKey(p.file.Encoded) || ref.Compare(own) >= 0 {
			return false, nil
		}
		ok, before := looked[ref]
		if !before {
			ok, err = s.use(own.String(), ref)
			looked[ref] = ok
		}
		return ok, err
	}
	to := &referrer{info: info, files: map[string]int{}}
	if s.referenceShare >= 0 {
		if err := sv.useOld(ctx, to, usable); err != nil {
			return nil, err
		}
	}
	if s.delta > 0 {
		if err := sv.useDeltas(to, usable); err != nil {
			return nil, err
		}
	}
	for i := range info.Origins {
		info.Origins[i].Spans = mergeSpans(info.Origins[i].Spans)
	}
	for i := range sv.memos {
		if m := &sv.memos[i]; !m.summed && (!m.before.sampled || m.before.sample == m.sample) && len(w.Tensors[i].Data) > 0 {
			sv.toSum = append(sv.toSum, i)
		}
	}
	return sv, nil
}

// useOld refers to the tensors that have not changed, where that is worth it.
func (sv *saving) useOld(ctx context.Context, to *referrer, usable func(*place) (bool, error)) error {
	total := int64(0)
	for _, t := range sv.tensors {
		total += int64(len(t.Data))
	}
	least := max(1, int64(float64(total)*sv.store.referenceShare))
	worth := sv.bytesBySource(least)
	if len(worth) == 0 {
		return nil
	}
	if err := sv.compare(ctx, worth); err != nil {
		return err
	}
	chosen, err := sv.choose(sv.bytesBySource(least), least, usable)
	if err != nil {
		return err
	}
	sv.layOut(to, chosen)
	return nil
}

// choose gives each tensor that is the same its place, nil where it has none: the newest that can be used. A source for which that comes to less than
// is worth it is left out, and its tensors go to their next place, or are written.
func (sv *saving) choose(worth map[Ref]int64, least int64, usable func(*place) (bool, error)) ([]*place, error) {
	for {
		chosen, sums := make([]*place, len(sv.memos)), map[Ref]int64{}
		for i := range sv.memos {
			m := &sv.memos[i]
			for j := range m.before.places {
				p := &m.before.places[j]
				if _, ok := worth[p.file.Ref()]; !ok || !m.same || !m.summed {
					continue
				}
				ok, err := usable(p)
				if err != nil {
					return nil, err
				}
				if ok {
					chosen[i] = p
					sums[p.file.Ref()] += int64(len(sv.tensors[i].Data))
					break
				}
			}
		}
		enough := true
		for ref, n := range sums {
			if n < least {
				enough = false
				delete(worth, ref)
			}
		}
		if enough {
			return chosen, nil
		}
	}
}

// sameKey says whether a file is encrypted as this Store's own are: what is to be encrypted does not refer to what is not.
func (s *Store) sameKey(e *Encoding) bool {
	have, want := "", ""
	if e != nil {
		have = e.Key
	}
	if s.as != nil {
		want = s.as.Key
	}
	return have == want
}

// referrer puts files of earlier checkpoints into a description.
type referrer struct {
	info  *ShardInfo
	files map[string]int // number of each, from 1
}

// refer gives the number of a place's file. Spans are put in order when all are known.
func (b *referrer) refer(p *place) int {
	n := b.files[p.file.name()]
	if n == 0 {
		b.info.Origins = append(b.info.Origins, p.file)
		n = len(b.info.Origins)
		b.files[p.file.name()] = n
		b.info.Origins[n-1].Spans = slices.Clone(p.file.Spans)
		return n
	}
	b.info.Origins[n-1].Spans = append(b.info.Origins[n-1].Spans, p.file.Spans...)
	return n
}

// recognise looks the tensors up. Those whose samples are the same, or that were never sampled, may be the same.
func (sv *saving) recognise(last map[string]known, info *ShardInfo) {
	sv.memos = make([]tensorMemo, len(sv.tensors))
	for i := range sv.tensors {
		m := &sv.memos[i]
		m.key = boxKey(&info.Tensors[i])
		m.sample = sampleOf(sv.tensors[i].Data)
		m.before = last[m.key]
		m.same = m.before.summed && len(m.before.places) > 0 && (!m.before.sampled || m.before.sample == m.sample)
	}
}

// bytesBySource adds up what the tensors that are the same have in each earlier checkpoint, and gives those that have at least so much.
func (sv *saving) bytesBySource(least int64) map[Ref]int64 {
	sums := map[Ref]int64{}
	for i := range sv.memos {
		if !sv.memos[i].same {
			continue
		}
		for _, p := range sv.memos[i].before.places {
			sums[p.file.Ref()] += int64(len(sv.tensors[i].Data))
		}
	}
	for ref, n := range sums {
		if n < least {
			delete(sums, ref)
		}
	}
	return sums
}

// compareAtOnce is how many tensors are summed at the same time.
const compareAtOnce = 2

// compare sums the tensors that may be the same in one of the sources, and keeps those that are.
func (sv *saving) compare(ctx context.Context, sources map[Ref]int64) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(compareAtOnce)
	for i := range sv.memos {
		m := &sv.memos[i]
		if !m.same {
			continue
		}
		m.same = false
		for _, p := range m.before.places {
			_, ok := sources[p.file.Ref()]
			m.same = m.same || ok
		}
		if !m.same {
			continue
		}
		group.Go(func() error {
			m.sum, m.summed = sv.store.tensorSum(sv.tensors[i].Data), true
			m.same = m.sum == m.before.sum
			return gctx.Err()
		})
	}
	return group.Wait()
}

// layOut refers to the chosen places and gives the other tensors new ones in the file.
func (sv *saving) layOut(to *referrer, chosen []*place) {
	at := int64(Align)
	for i := range to.info.Tensors {
		t := &to.info.Tensors[i]
		if p := chosen[i]; p != nil {
			t.From, t.FileOffset = to.refer(p), p.at
			sv.refers = true
			continue
		}
		t.FileOffset = at
		at += alignUp(t.size())
	}
	to.info.Bytes = at
}

// tensorSum is what a tensor is known by. Of what is encrypted it tells nothing to whoever has no key.
func (s *Store) tensorSum(data []byte) Sum {
	sum := sumOf(data)
	if s.as == nil || s.as.Key == "" {
		return sum
	}
	return Sum(s.keys[0].mac("gangline tensor", sum[:])[:len(sum)])
}

// sumRest makes the sums that the next save will ask for, while the bytes are written.
func (sv *saving) sumRest(ctx context.Context) error {
	for _, i := range sv.toSum {
		if err := ctx.Err(); err != nil {
			return err
		}
		m := &sv.memos[i]
		m.sum, m.summed = sv.store.tensorSum(sv.tensors[i].Data), true
		m.same = m.same && m.sum == m.before.sum
	}
	return nil
}

// note puts the sums into the description.
func (sv *saving) note(info *ShardInfo) {
	for i := range sv.memos {
		if m := &sv.memos[i]; m.summed && info.Tensors[i].size() > 0 {
			sum := m.sum
			info.Tensors[i].Sum = &sum
		}
	}
}

// learn gives what is known of the tensors once they have been saved.
func (sv *saving) learn(ref Ref, worldSize int, chunkBytes int64, info *ShardInfo) map[string]known {
	out := make(map[string]known, len(sv.memos))
	for i := range sv.memos {
		m, t := &sv.memos[i], &info.Tensors[i]
		if t.size() == 0 {
			continue
		}
		k := known{sample: m.sample, sampled: true, sum: m.sum, summed: m.summed}
		if t.Base > 0 { // nothing refers to a difference
			k.bases, k.deltas = m.before.bases, m.before.deltas+1
			out[m.key] = k
			continue
		}
		p := info.place(ref, worldSize, chunkBytes, t)
		k.places = append(k.places, p)
		if t.DType == BFloat16 && sv.store.delta > 0 {
			if k.bases = m.before.bases; len(k.bases) == 0 || k.bases[0].file.Ref() != p.file.Ref() {
				k.bases = append([]place{p}, k.bases[:min(len(k.bases), maxPlaces-1)]...)
			}
		}
		if m.same && m.summed { // an older place is as good, and may be complete sooner
			for _, o := range m.before.places {
				if len(k.places) < maxPlaces && o.file.Ref() != p.file.Ref() {
					k.places = append(k.places, o)
				}
			}
		}
		out[m.key] = k
	}
	return out
}
