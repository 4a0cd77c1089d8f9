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
	memos   []tensorMemo
	toSum   []int // tensors of which the sum is to be made while they are written
	refers  bool
	tensors []Tensor
}

// refer finds out which tensors have not changed since an earlier complete checkpoint, notes the reference, and lays the file out anew
// without them. Where nothing is gained, info stays as it was.
func (s *Store) refer(ctx context.Context, w *ShardWrite, info *ShardInfo) (*saving, error) {
	sv := &saving{tensors: w.Tensors}
	if s.referenceShare < 0 {
		return sv, nil
	}
	info.Tensors = slices.Clone(info.Tensors) // an image keeps its own
	sv.recognise(s.lastSaved(w.Rank, w.WorldSize), info)
	total := int64(0)
	for _, t := range w.Tensors {
		total += int64(len(t.Data))
	}
	least := max(1, int64(float64(total)*s.referenceShare))
	worth := sv.bytesBySource(func(i int) bool { return !sv.memos[i].same }, least)
	if len(worth) > 0 {
		if err := sv.compare(ctx, worth); err != nil {
			return nil, err
		}
		worth = sv.bytesBySource(func(i int) bool { return !sv.memos[i].same }, least)
	}
	dir := Ref{Epoch: w.Epoch, Step: w.Step}.String()
	usable := map[Ref]bool{}
	for ref := range worth {
		ok, err := s.use(dir, ref)
		if err != nil {
			return nil, err
		}
		if ok {
			usable[ref] = true
		}
	}
	if len(usable) > 0 {
		sv.layOut(info, usable)
	}
	for i := range sv.memos {
		if m := &sv.memos[i]; !m.summed && (!m.before.sampled || m.before.sample == m.sample) && len(w.Tensors[i].Data) > 0 {
			sv.toSum = append(sv.toSum, i)
		}
	}
	return sv, nil
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
func (sv *saving) bytesBySource(not func(int) bool, least int64) map[Ref]int64 {
	sums := map[Ref]int64{}
	for i := range sv.memos {
		if not(i) {
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
			m.sum, m.summed = sumOf(sv.tensors[i].Data), true
			m.same = m.sum == m.before.sum
			return gctx.Err()
		})
	}
	return group.Wait()
}

// layOut refers to the usable sources and gives the other tensors new places in the file.
func (sv *saving) layOut(info *ShardInfo, usable map[Ref]bool) {
	at := int64(Align)
	files := map[string]int{} // in info.Borrowed, from 1
	for i := range info.Tensors {
		t := &info.Tensors[i]
		if p := sv.memos[i].usablePlace(usable); p != nil {
			t.From, t.FileOffset = files[p.file.name()], p.at
			if t.From == 0 {
				info.Borrowed = append(info.Borrowed, p.file)
				info.Borrowed[len(info.Borrowed)-1].Spans = slices.Clone(p.file.Spans)
				t.From = len(info.Borrowed)
				files[p.file.name()] = t.From
			} else {
				b := &info.Borrowed[t.From-1]
				b.Spans = append(b.Spans, p.file.Spans...)
			}
			sv.refers = true
			continue
		}
		t.FileOffset = at
		at += alignUp(t.size())
	}
	for i := range info.Borrowed {
		info.Borrowed[i].Spans = mergeSpans(info.Borrowed[i].Spans)
	}
	info.Bytes = at
}

// usablePlace gives a place to refer to, nil if the tensor has changed or has none.
func (m *tensorMemo) usablePlace(usable map[Ref]bool) *place {
	if !m.same || !m.summed {
		return nil
	}
	for i := range m.before.places {
		if p := &m.before.places[i]; usable[p.file.Ref()] {
			return p
		}
	}
	return nil
}

// sumRest makes the sums that the next save will ask for, while the bytes are written.
func (sv *saving) sumRest(ctx context.Context) error {
	for _, i := range sv.toSum {
		if err := ctx.Err(); err != nil {
			return err
		}
		m := &sv.memos[i]
		m.sum, m.summed = sumOf(sv.tensors[i].Data), true
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
		p := info.place(ref, worldSize, chunkBytes, t)
		k.places = append(k.places, p)
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
