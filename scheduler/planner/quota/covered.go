package quota

// Covered returns how many milli-GPUs of a type a queue may take more so that
// a quota that it or a queue above it names covers all that it would hold then.
// What Check calls Guaranteed is what needs no more than this.
func (t *Tree) Covered(q *Queue, gpuType string) int64 {
	id, most := t.typeID(gpuType), int64(0)
	for x := q; x.parent != nil; x = x.parent {
		if quota, held := x.quotaOf(id); x.names {
			most = max(most, quota-held)
		}
	}
	return most
}
