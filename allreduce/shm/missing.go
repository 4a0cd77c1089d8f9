package shm

// Missing says whether a member has not reached the phase that this one has.
func (t *Team) Missing(member int) bool {
	_, behind := t.behind(member)
	return behind
}
