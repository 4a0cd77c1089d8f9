package worker

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// supervisorLockFD is where Launch hands over the held lock.
	supervisorLockFD = 3
	// drainWait bounds the reading of what is left in the pipes when every process of the worker is gone: only a
	// stranger that was handed the pipe's other end can keep it open.
	drainWait = 2 * time.Second
	// Waits between two tries to write the exit status to a disk that refuses.
	persistMin = 100 * time.Millisecond
	persistMax = 5 * time.Second

	exitOK      = 0
	exitLost    = 1
	exitMisused = 2
)

// supervisor is the process between agent and worker. Its main goroutine owns every field; other goroutines talk to
// it through the board and the reaper.
type supervisor struct {
	dir     string
	launch  launchFile
	lock    *os.File
	board   *board
	server  *controlServer
	sinks   [2]*logSink
	pipes   [2]*os.File
	pumps   sync.WaitGroup
	reaper  *reaper
	plan    stopPlan
	signals chan os.Signal
}

// Supervise runs the worker of one directory from start to end and returns the process's exit code: 0 when the
// worker's end is on disk, 1 when it could not be recorded, 2 when not started by Manager.Launch. It takes over the
// whole process (working directory, signals, children), so it must be all that the process does.
func Supervise(dir string) int {
	s, err := newSupervisor(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitMisused
	}
	s.start()
	if s.reaper != nil {
		s.loop()
	}
	s.drain()
	return s.finish()
}

// newSupervisor takes over the process.
func newSupervisor(dir string) (*supervisor, error) {
	s := &supervisor{dir: dir, signals: make(chan os.Signal, 16)}
	// Handled signals are reset to their default in the worker; ignored ones would stay ignored there.
	signal.Notify(s.signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGPIPE, unix.SIGALRM)
	if err := s.inheritLock(); err != nil {
		return nil, fmt.Errorf("supervise %s: %w", dir, err)
	}
	if err := closeInherited(); err != nil {
		return nil, fmt.Errorf("supervise %s: close what the agent left open: %w", dir, err)
	}
	if err := os.Chdir(dir); err != nil {
		return nil, fmt.Errorf("supervise: %w", err)
	}
	if err := readJSON(dir, specFile, &s.launch); err != nil {
		return nil, fmt.Errorf("supervise: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("supervise %s: become the reaper of the worker's processes: %w", dir, err)
	}
	spec := s.launch.Spec
	s.sinks = [2]*logSink{newLogSink(dir, Stdout, spec.MaxLogBytes), newLogSink(dir, Stderr, spec.MaxLogBytes)}
	s.board = newBoard(Status{
		Key: spec.Key, State: Starting, BootID: s.launch.BootID, SupervisorPID: os.Getpid(),
		LaunchedAt: s.launch.LaunchedAt, ExitCode: -1, Reason: "its supervisor is starting it",
	}, func() int64 { return s.sinks[0].droppedBytes() + s.sinks[1].droppedBytes() })
	return s, nil
}

// inheritLock checks that descriptor 3 is this directory's lock, taken by the agent before it started us. There is
// so no moment in which we run and the lock is free, and nobody can start a second supervisor by hand.
func (s *supervisor) inheritLock() error {
	var have, want unix.Stat_t
	const advice = "only the agent starts supervisors"
	if err := unix.Stat(s.dir+"/"+lockFile, &want); err != nil {
		return fmt.Errorf("find its lock: %w: %s", err, advice)
	}
	if err := unix.Fstat(supervisorLockFD, &have); err != nil || have.Ino != want.Ino || have.Dev != want.Dev {
		return errors.New("descriptor 3 is not its lock: " + advice)
	}
	unix.CloseOnExec(supervisorLockFD) // or the worker would hold it too
	s.lock = os.NewFile(supervisorLockFD, lockFile)
	return nil
}

// closeInherited closes whatever the agent itself had inherited without close-on-exec (a shell's pipe, say): a
// supervisor lives for weeks and must not keep it open. The Go runtime's own descriptors are close-on-exec.
func closeInherited() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= supervisorLockFD {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd) // not ours: nothing to lose
		}
	}
	return nil
}

// start opens the control socket and starts the worker; s.reaper stays nil if that did not work.
func (s *supervisor) start() {
	server, err := startControl(s.board)
	if err != nil {
		s.launchFailed(fmt.Errorf("open the control socket: %w: is the node's state directory on a local disk with free space?", err))
		return
	}
	s.server = server
	var ends [2]*os.File
	for i := range ends {
		s.pipes[i], ends[i], err = os.Pipe()
		if err != nil {
			s.launchFailed(fmt.Errorf("open a pipe for the output: %w", err))
			return
		}
		defer ends[i].Close() //nolint:errcheck // the worker's copy is what counts
	}
	pid, err := startWorker(s.launch.Spec, s.launch.Token, ends[0], ends[1])
	if err != nil {
		s.launchFailed(err)
		return
	}
	started := time.Now()
	row, err := readProcess(pid) // still there even if it has ended: nobody has reaped it
	s.reaper = startReaper(pid)
	for i := range s.sinks {
		s.pumps.Go(func() { pump(s.pipes[i], s.sinks[i]) })
	}
	st := s.board.get()
	st.State, st.PID, st.StartedAt, st.Reason = Running, pid, started, "running"
	if err == nil {
		st.StartTicks = row.start
	}
	s.publish(st)
}

func (s *supervisor) launchFailed(err error) {
	st := s.board.get()
	st.LaunchError, st.Reason, st.ExitedAt = err.Error(), "the command could not be started: "+err.Error(), time.Now()
	s.board.set(st)
}

// publish tells subscribers and the disk. The disk copy of an unfinished worker serves only to find its processes
// after the supervisor's death within this boot, so it needs no fsync; and if the disk refuses, the token remains.
func (s *supervisor) publish(st Status) {
	s.board.set(st)
	_ = replaceFile(s.dir, statusFile, st, false)
}

// pump copies one output to its log until every writer is gone.
func pump(from *os.File, to *logSink) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		to.write(buf[:n])
		if err != nil {
			return
		}
	}
}

// loop runs the stop handshake and waits until no process of the worker is left.
func (s *supervisor) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for _, stage := range s.plan.due(time.Now()) {
			s.act(stage)
		}
		timer.Stop()
		if at, ok := s.plan.next(); ok {
			timer.Reset(time.Until(at))
		}
		select {
		case exit, ok := <-s.reaper.exits:
			if !ok {
				return
			}
			s.mainExited(exit)
		case stop := <-s.board.stops:
			s.stop(stop)
		case sig := <-s.signals:
			if sig == unix.SIGTERM {
				s.stop(Stop{Warn: 0, Grace: s.launch.Spec.Grace, Reason: "its supervisor was told to end (SIGTERM): is the machine shutting down?"})
			}
		case <-timer.C:
		}
	}
}

// stop merges a request into the plan and says so.
func (s *supervisor) stop(stop Stop) {
	now := time.Now()
	s.plan.request(now, stop)
	st := s.board.get()
	if st.StopRequestedAt.IsZero() && st.ExitedAt.IsZero() {
		st.StopRequestedAt, st.StopReason = s.plan.requested, s.plan.reason
	}
	if st.State == Running && st.ExitedAt.IsZero() {
		st.State, st.Reason = Stopping, "stopping: "+s.plan.reason
	}
	s.publish(st)
}

// act carries out one stage. Signals go to living processes only; errors mean that one has just ended.
func (s *supervisor) act(stage stage) {
	switch stage {
	case stageWarn:
		name := s.plan.signal
		if name == "" {
			name = s.launch.Spec.WarnSignal
		}
		if sig, err := parseSignal(name); err == nil {
			s.warn(sig)
		}
	case stageTerm:
		s.signalEvery(unix.SIGTERM)
	case stageKill:
		s.signalEvery(unix.SIGKILL)
	}
}

// warn signals the main process if it handles the signal, else those of its children that do: a shell or a launcher that
// dies of the warning would take the program beneath it along. If nobody handles it the main process gets it.
func (s *supervisor) warn(sig syscall.Signal) {
	all, err := listProcesses()
	if err == nil {
		if found := handlers(all, s.reaper.main, sig); len(found) > 0 {
			_ = signalAll(found, sig) // an error means that one has just ended
			return
		}
	}
	s.reaper.signalMain(sig)
}

// signalEvery signals the group at once, then each descendant that is not in it. Once the main process is reaped the
// group's number is no longer safe, and every descendant is signalled by itself.
func (s *supervisor) signalEvery(sig syscall.Signal) {
	s.reaper.signalGroup(sig)
	all, err := listProcesses()
	if err != nil {
		return // killing comes again; and /proc is there on every machine that this package runs on
	}
	mainGone := !s.board.get().ExitedAt.IsZero()
	var rest []process
	for _, p := range descendants(all, os.Getpid()) {
		if mainGone || p.group != s.reaper.main {
			rest = append(rest, p)
		}
	}
	_ = signalAll(rest, sig)
}

// mainExited records the end of the main process; what it left behind is stopped before the worker counts as exited.
func (s *supervisor) mainExited(exit mainExit) {
	st := s.board.get()
	st.ExitedAt = time.Now()
	if exit.status.Signaled() {
		st.Signal = unix.SignalName(exit.status.Signal())
	} else {
		st.ExitCode = exit.status.ExitStatus()
	}
	st.Reason = describeEnd(st, exit.status.Signal(), s.plan)
	if exit.others {
		st.State = Stopping
		st.Reason += "; processes that it left behind were stopped"
		s.plan.orphans(st.ExitedAt, exit.status.Signaled())
		s.publish(st)
		return
	}
	s.board.set(st)
}

// describeEnd is the sentence of an ended main process.
func describeEnd(st Status, sig syscall.Signal, plan stopPlan) string {
	how := "exited with code " + strconv.Itoa(st.ExitCode)
	if st.Signal != "" {
		how = "killed by " + st.Signal
	}
	switch {
	case !st.Stopped():
		return how
	case sig == unix.SIGKILL && plan.again > 0:
		how = "killed by SIGKILL because it had not ended in time"
	}
	return "stopped (" + plan.reason + "): " + how
}

// drain takes what is left in the pipes.
func (s *supervisor) drain() {
	for _, p := range s.pipes {
		if p != nil {
			_ = p.SetReadDeadline(time.Now().Add(drainWait))
		}
	}
	s.pumps.Wait()
	for i, p := range s.pipes {
		if p != nil {
			_ = p.Close()
		}
		s.sinks[i].flush()
	}
}

// finish publishes the end, puts it on disk however long that takes, and ends the control server.
func (s *supervisor) finish() int {
	var use unix.Rusage
	st := s.board.get()
	if unix.Getrusage(unix.RUSAGE_CHILDREN, &use) == nil {
		st.UserSeconds = time.Duration(use.Utime.Nano()).Seconds()
		st.SystemSeconds = time.Duration(use.Stime.Nano()).Seconds()
		st.MaxRSSBytes = use.Maxrss << 10
	}
	st.State = Exited
	code := s.persist(st)
	for _, sink := range s.sinks {
		sink.flush()
		sink.close()
	}
	if s.server != nil {
		s.server.close()
	}
	return code
}

// persist writes the exit status, again and again while the disk refuses; the control socket answers meanwhile. It
// gives up only when told to end or when the directory itself was removed.
func (s *supervisor) persist(st Status) int {
	for wait := persistMin; ; wait = min(2*wait, persistMax) {
		final := st
		final.Durable = true
		final.DroppedLogBytes = s.board.get().DroppedLogBytes
		err := replaceFile(s.dir, statusFile, final, true)
		if err == nil {
			s.board.set(final)
			return exitOK
		}
		s.board.set(st)
		if _, gone := os.Stat(s.dir); errors.Is(gone, os.ErrNotExist) {
			fmt.Fprintln(os.Stderr, "record the worker's end:", err)
			return exitLost
		}
		select {
		case <-time.After(wait):
		case sig := <-s.signals:
			if sig == unix.SIGTERM {
				fmt.Fprintln(os.Stderr, "told to end before the worker's end could be recorded:", err)
				return exitLost
			}
		}
	}
}
