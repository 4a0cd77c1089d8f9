package nodeagent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/socket"
	"github.com/gangline/gangline/nodeagent/telemetry"
	"github.com/gangline/gangline/nodeagent/worker"
)

const (
	// maxActions bounds what is carried out at once: each launch waits for the disk a few times.
	maxActions = 16
	// maxStarts of them may be anything but stops: launches wait for the shared storage too, and when that hangs, workers
	// must still be stopped.
	maxStarts = 12
	// retryAfter is the wait before what failed is tried again: a full disk, a supervisor that does not answer.
	retryAfter = time.Second
)

// reconciler is the state of the one goroutine that decides; nothing else touches it.
type reconciler struct {
	*Agent
	order *order // nil as long as no leader has spoken

	// told is the tightest stop that each worker was told since the agent started; until holds its deadlines.
	told  map[reconcile.Key]reconcile.Stop
	until map[reconcile.Key]socket.Stop
	// busy are keys with an action under way; ports are those that launches among them have taken.
	busy  map[reconcile.Key]reconcile.Action
	ports map[reconcile.Key]int32
	// ended are exits already counted.
	ended map[reconcile.Key]bool

	life    context.Context //nolint:containedctx // ends with the agent; launches wait for storage
	results chan result
	running sync.WaitGroup
	retry   *time.Timer
}

// result is what became of an action.
type result struct {
	action reconcile.Action
	err    error
}

// loop owns the reconciliation until ctx ends, and waits for the actions under way.
func (a *Agent) loop(ctx context.Context) error {
	r := &reconciler{
		Agent: a, life: ctx,
		told: map[reconcile.Key]reconcile.Stop{}, until: map[reconcile.Key]socket.Stop{},
		busy: map[reconcile.Key]reconcile.Action{}, ports: map[reconcile.Key]int32{}, ended: map[reconcile.Key]bool{},
		results: make(chan result, maxActions), // so that no action ever waits for the loop
		retry:   time.NewTimer(retryAfter),
	}
	defer r.running.Wait()
	defer r.retry.Stop()
	r.adopted()
	for {
		r.look()
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-a.workers.Changed():
		case <-r.retry.C:
		case res := <-r.results:
			r.finish(res)
		}
	}
}

// adopted counts what was found at the start, and removes folders that a former agent left.
func (r *reconciler) adopted() {
	present := map[string]bool{}
	for _, st := range r.workers.Workers() {
		present[st.Key.String()] = true
		if st.State == worker.Exited {
			r.ended[reconcile.Key(st.Key)] = true
			_ = os.Remove(st.Labels[labelSocket]) // left by an agent that was killed; mostly there is none
		} else {
			r.metrics.Launched(telemetry.LaunchAdopted)
		}
	}
	root := filepath.Join(r.cfg.StateDir, runDir)
	err := removeOthers(root, present)
	if images := r.imageRoot(); images != "" {
		err = errors.Join(err, removeOthers(images, present))
	}
	if err != nil {
		r.log.Warn("folders of former workers cannot be removed", "err", err)
	}
}

// look is one round: take the newest order, compare, act, tell. It never waits for a worker or for the network.
func (r *reconciler) look() {
	r.takeOrder()
	r.keepCheckpoints()
	statuses := r.workerStatuses()
	r.setHeld(statuses)
	r.openSockets(statuses)
	known := r.known(statuses)
	if r.order != nil {
		for _, action := range reconcile.Diff(r.order.desired, known) {
			if _, busy := r.busy[action.Key]; busy || !r.room(action.Kind) {
				continue // its result wakes the loop
			}
			r.start(action, statuses)
		}
	}
	r.clean(statuses)
	r.notify()
}

// room tells whether one more action may be under way.
func (r *reconciler) room(kind reconcile.Kind) bool {
	starts := 0
	for _, action := range r.busy {
		if action.Kind != reconcile.Halt {
			starts++
		}
	}
	return len(r.busy) < maxActions && (kind == reconcile.Halt || starts < maxStarts)
}

// takeOrder makes the newest order the one in force, its fence durable first.
func (r *reconciler) takeOrder() {
	d := r.orders.take()
	if d == nil {
		return
	}
	if err := fenceOf(d).Compare(r.id.highest()); err < 0 {
		return // the stream has said so already
	}
	if err := r.id.obey(fenceOf(d)); err != nil {
		r.log.Error("an order cannot be obeyed yet: its fence is not on disk", "index", fenceOf(d).Index, "err", err)
		r.orders.putBack(d)
		r.retry.Reset(retryAfter)
		return
	}
	r.order = r.obeyed(d)
	for key, w := range r.order.by {
		r.sockets.SetGang(key, gangOf(w.assignment))
	}
}

// known is what the node knows of its workers, in the words of reconcile.
func (r *reconciler) known(statuses []worker.Status) []reconcile.Worker {
	known := make([]reconcile.Worker, 0, len(statuses))
	seen := map[reconcile.Key]bool{}
	for _, st := range statuses {
		w := reconcile.Worker{
			Key: reconcile.Key(st.Key), GPUs: st.GPUs, Milli: shareOf(st), Alive: st.State != worker.Exited, Acknowledged: st.Acked,
		}
		if stop, ok := r.told[w.Key]; ok {
			w.Stopping = &stop
		}
		seen[w.Key] = true
		known = append(known, w)
	}
	for key, d := range r.declinedNow() {
		if !seen[key] {
			seen[key] = true
			known = append(known, reconcile.Worker{Key: key, Acknowledged: d.acked})
		}
	}
	for key, action := range r.busy {
		if action.Kind == reconcile.Launch && !seen[key] {
			known = append(known, reconcile.Worker{Key: key, GPUs: action.GPUs, Milli: action.Milli, Alive: true})
		}
	}
	return known
}

// openSockets keeps a socket open for every living worker, also for those that this agent has adopted, and closes
// those of the ended.
func (r *reconciler) openSockets(statuses []worker.Status) {
	for _, st := range statuses {
		key := reconcile.Key(st.Key)
		if st.State == worker.Exited {
			r.sockets.Hush(key)
			if st.Acked {
				r.sockets.Forget(key)
			} else {
				r.sockets.Track(key, r.files(st)) // what it said goes into the report of its end
			}
			if !r.ended[key] {
				r.ended[key] = true
				_ = os.Remove(st.Labels[labelSocket]) // one that a killed agent left and this one had no time to serve
				r.metrics.Exited(exitOf(st))
			}
			continue
		}
		r.sockets.Track(key, r.files(st))
		if err := r.sockets.Serve(key); err != nil {
			r.log.Error("a worker has no agent socket", "job", key.Job, "epoch", key.Epoch, "rank", key.Rank, "err", err)
			r.retry.Reset(retryAfter)
		}
		r.paceOf(st)
		if r.order != nil {
			if w, ok := r.order.by[key]; ok {
				r.sockets.SetGang(key, gangOf(w.assignment))
			}
		}
	}
}

// start carries out one action, in a goroutine of its own if it touches the disk.
func (r *reconciler) start(action reconcile.Action, statuses []worker.Status) {
	key := worker.Key(action.Key)
	var act func() error
	switch action.Kind {
	case reconcile.Launch:
		ordered := r.order.by[action.Key]
		port, err := r.choosePort(action.Key, ordered.assignment, statuses)
		act = func() error {
			if err != nil {
				return err
			}
			return r.launch(r.life, action.Key, ordered, port)
		}
	case reconcile.Halt:
		r.tell(action, statuses)
		stop := worker.Stop{Warn: action.Stop.Warn, Grace: action.Stop.Grace, Reason: action.Stop.Why}
		act = func() error { return r.workers.Stop(key, stop) }
	case reconcile.Decline:
		r.log.Info("worker was stopped before it started", keyArgs(action.Key, "reason", action.Stop.Why)...)
		r.decline(action.Key, declinedWorker{
			gpus: action.GPUs, signal: int32(unix.SIGTERM), stopped: true, message: "stopped before it started: " + action.Stop.Why,
		})
		return
	case reconcile.Acknowledge:
		if r.acknowledgeDeclined(action.Key) {
			return
		}
		act = func() error { return r.workers.Ack(key) }
	}
	r.busy[action.Key] = action
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		r.results <- result{action: action, err: act()}
	}()
}

// tell puts a stop on the worker's socket before the first signal is sent, with the deadlines that its supervisor
// keeps: later requests can only bring them forward, and a stop that a former agent asked for counts from then.
func (r *reconciler) tell(action reconcile.Action, statuses []worker.Status) {
	from := time.Now()
	for _, st := range statuses {
		if reconcile.Key(st.Key) == action.Key && st.Stopped() && st.StopRequestedAt.Before(from) && r.untold(action.Key) {
			from = st.StopRequestedAt
		}
	}
	stop := socket.Stop{
		Reason: action.Stop.Why, Terminate: from.Add(action.Stop.Warn), Kill: from.Add(action.Stop.Warn + action.Stop.Grace),
	}
	if old, ok := r.until[action.Key]; ok {
		stop.Terminate, stop.Kill = earlier(old.Terminate, stop.Terminate), earlier(old.Kill, stop.Kill)
	}
	r.until[action.Key] = stop
	r.sockets.SetStop(action.Key, stop)
}

func (r *reconciler) untold(key reconcile.Key) bool {
	_, ok := r.told[key]
	return !ok
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// finish takes the result of an action.
func (r *reconciler) finish(res result) {
	key := res.action.Key
	delete(r.busy, key)
	delete(r.ports, key) // a worker that lives has it in its labels
	switch res.action.Kind {
	case reconcile.Launch:
		r.launched(res)
	case reconcile.Halt:
		if res.err != nil {
			r.log.Warn("a worker was not told to stop yet", keyArgs(key, "err", res.err)...)
			r.retry.Reset(retryAfter)
			return
		}
		told := res.action.Stop
		if old, ok := r.told[key]; ok {
			told.Grace = min(old.Warn+old.Grace, told.Warn+told.Grace)
			told.Warn = min(old.Warn, told.Warn)
			told.Grace -= told.Warn
		}
		r.told[key] = told
		r.log.Info("worker is to stop", keyArgs(key, "reason", told.Why, "warn", told.Warn, "grace", told.Grace)...)
	case reconcile.Acknowledge:
		if res.err != nil {
			r.log.Warn("an exit cannot be forgotten yet", keyArgs(key, "err", res.err)...)
			r.retry.Reset(retryAfter)
		}
	case reconcile.Decline: // done on the spot
	}
}

// launched takes the result of a launch. What could not even get a supervisor is reported as an end, so that the job
// is tried elsewhere and not here for ever.
func (r *reconciler) launched(res result) {
	key := res.action.Key
	switch {
	case res.err == nil:
		r.metrics.Launched(telemetry.LaunchStarted)
	case errors.Is(res.err, worker.ErrClosed):
	case errors.Is(res.err, worker.ErrCollected):
		r.decline(key, declinedWorker{acked: true, message: res.err.Error()})
	default:
		r.log.Error("a worker cannot be launched", keyArgs(key, "err", res.err)...)
		r.metrics.Launched(telemetry.LaunchFailed)
		r.decline(key, declinedWorker{gpus: res.action.GPUs, code: launchFailed, message: res.err.Error()})
	}
}

func (r *reconciler) decline(key reconcile.Key, d declinedWorker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.declined[key] = d
}

// acknowledgeDeclined marks a declined worker's end as known; false if key is not a declined one.
func (r *reconciler) acknowledgeDeclined(key reconcile.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.declined[key]
	if ok {
		d.acked = true
		r.declined[key] = d
	}
	return ok
}

// clean forgets what neither the node nor the order knows any more.
func (r *reconciler) clean(statuses []worker.Status) {
	listed := map[reconcile.Key]bool{}
	if r.order != nil {
		for _, key := range r.order.desired.Listed() {
			listed[key] = true
		}
	}
	r.mu.Lock()
	for key, d := range r.declined {
		if d.acked && !listed[key] {
			delete(r.declined, key)
		}
	}
	r.mu.Unlock()
	alive, present := map[reconcile.Key]bool{}, map[reconcile.Key]bool{}
	for _, st := range statuses {
		key := reconcile.Key(st.Key)
		present[key] = true
		alive[key] = st.State != worker.Exited
	}
	for key := range r.told {
		if !alive[key] {
			delete(r.told, key)
		}
	}
	for key := range r.until {
		if !alive[key] {
			delete(r.until, key)
		}
	}
	for key := range r.ended {
		if !present[key] { // collected: its folder goes too
			delete(r.ended, key)
			r.sockets.Forget(key)
			if err := os.RemoveAll(r.workerDir(key)); err != nil {
				r.log.Warn("a finished worker's folder cannot be removed", keyArgs(key, "err", err)...)
			}
		}
	}
}

func (a *Agent) workerDir(key reconcile.Key) string {
	return filepath.Join(a.cfg.StateDir, runDir, key.String())
}

// keyArgs are the log arguments that name a worker, then more.
func keyArgs(key reconcile.Key, more ...any) []any {
	return append([]any{"job", key.Job, "epoch", key.Epoch, "rank", key.Rank}, more...)
}
