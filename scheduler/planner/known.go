package planner

import "github.com/gangline/gangline/scheduler/cluster"

// known finds what the index has of a job: its entry while it waits, its run
// while it holds GPUs, never both. Each change of each job looks here several times.
type known struct {
	roll    cluster.Roll[slot]
	waiting int // entries
	holding int // runs
}

type slot struct {
	entry *entry
	run   *run
}

// at is what is known of a job.
func (k *known) at(id cluster.JobID) slot { return k.roll.At(id) }

// entry is a pending job's, or nil.
func (k *known) entry(id cluster.JobID) *entry { return k.at(id).entry }

// run is that of a job that holds GPUs, or nil.
func (k *known) run(id cluster.JobID) *run { return k.at(id).run }

// addEntry takes in a job that waits and is not known to.
func (k *known) addEntry(e *entry) {
	k.roll.Set(e.job.ID, slot{entry: e})
	k.waiting++
}

// addRun takes in a job that holds GPUs and is not known to.
func (k *known) addRun(id cluster.JobID, r *run) {
	k.roll.Set(id, slot{run: r})
	k.holding++
}

// dropEntry forgets a job that is known to wait.
func (k *known) dropEntry(id cluster.JobID) {
	k.roll.Set(id, slot{})
	k.waiting--
}

// startEntry is dropEntry and addRun of a job that starts.
func (k *known) startEntry(id cluster.JobID, r *run) {
	k.roll.Set(id, slot{run: r})
	k.waiting--
	k.holding++
}

// dropRun forgets a job that is known to hold GPUs.
func (k *known) dropRun(id cluster.JobID) {
	k.roll.Set(id, slot{})
	k.holding--
}

// entries are all jobs that wait, by id. None may come or go meanwhile.
func (k *known) entries() func(func(*entry) bool) {
	return func(yield func(*entry) bool) {
		for s := range k.roll.All() {
			if s.entry != nil && !yield(s.entry) {
				return
			}
		}
	}
}

// runs are all jobs that hold GPUs, by id. None may come or go meanwhile.
func (k *known) runs() func(func(*run) bool) {
	return func(yield func(*run) bool) {
		for s := range k.roll.All() {
			if s.run != nil && !yield(s.run) {
				return
			}
		}
	}
}
