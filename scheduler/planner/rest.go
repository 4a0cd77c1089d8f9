package planner

// Where there is room most jobs start at once, and the next one is often of the
// same lane. So lanes whose last job has left them rest for a while, and wait for
// it: in no place, and with nothing that a new one does not have.

// maxResting bounds the lanes that rest, and maxRestingJobs the room for jobs that
// such a lane keeps.
const (
	maxResting     = 256
	maxRestingJobs = 16
)

// rest lets a lane rest that dropLane has taken out, or forgets it if somebody
// still knows it as it was, or no job of it is to come.
func (x *Index) rest(l *lane) {
	if l.away > 0 || l.listed || l.array != 0 {
		x.forget(l)
		return
	}
	if len(x.resting) == maxResting {
		x.forget(x.resting[x.restless]) // each in its turn: those that rest long go, too
		x.restless = (x.restless + 1) % maxResting
	}
	jobs := l.jobs
	if cap(jobs.items) > maxRestingJobs {
		jobs.items = nil
	}
	l.group.resting++
	*l = lane{laneKey: l.laneKey, q: l.q, shape: l.shape, group: l.group, need: l.need, jobs: jobs, pos: -1, wpos: -1, rests: true, restsAt: len(x.resting)}
	x.resting = append(x.resting, l)
}

// rouse ends a lane's rest.
func (x *Index) rouse(l *lane) {
	l.rests = false
	l.group.resting--
	last := len(x.resting) - 1
	x.resting[l.restsAt] = x.resting[last]
	x.resting[l.restsAt].restsAt = l.restsAt
	x.resting[last] = nil
	x.resting = x.resting[:last]
}

// forget forgets an empty lane.
func (x *Index) forget(l *lane) {
	if l.rests {
		x.rouse(l)
	}
	if x.recent == l {
		x.recent = nil
	}
	delete(x.lanes, l.laneKey)
	x.dropGroup(l.group)
}
