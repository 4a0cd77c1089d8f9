package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// aliveWorker is a training process, found in /proc and not through Gangline:
// what the demo claims about workers must not rest on Gangline's own word.
type aliveWorker struct {
	job, epoch uint64
	rank       int
	pid        int
	start      string // the kernel's start time: tells it from a later process of the same number
}

func (w aliveWorker) String() string {
	return fmt.Sprintf("job %d epoch %d rank %d", w.job, w.epoch, w.rank)
}

// runningWorkers finds the main process of each worker of this demo.
func (s *story) runningWorkers() ([]aliveWorker, error) {
	pids, err := processesOf(s.p.dir)
	if err != nil {
		return nil, err
	}
	var out []aliveWorker
	for _, pid := range pids {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			continue // it has ended meanwhile
		}
		vars := map[string]string{}
		for _, e := range bytes.Split(env, []byte{0}) {
			if k, v, ok := bytes.Cut(e, []byte("=")); ok {
				vars[string(k)] = string(v)
			}
		}
		group, err := syscall.Getpgid(pid)
		if err != nil || group != pid || vars["GANGLINE_JOB_ID"] == "" || vars["RANK"] == "" {
			continue // a supervisor, an agent, or a child of a worker
		}
		w := aliveWorker{pid: pid, start: startTime(pid)}
		w.job, _ = strconv.ParseUint(vars["GANGLINE_JOB_ID"], 10, 64)
		w.epoch, _ = strconv.ParseUint(vars["GANGLINE_EPOCH"], 10, 64)
		w.rank, _ = strconv.Atoi(vars["RANK"])
		out = append(out, w)
	}
	return out, nil
}

// startTime is field 22 of /proc/PID/stat, or "" if the process is gone.
func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || zombie(pid) {
		return ""
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return ""
	}
	return string(fields[19])
}

// lostWorkers returns those of the workers that are neither alive nor ended as they should.
func (s *story) lostWorkers(before []aliveWorker) []string {
	var lost []string
	for _, w := range before {
		if startTime(w.pid) == w.start {
			continue
		}
		if !s.endedWell(w) {
			lost = append(lost, w.String())
		}
	}
	return lost
}

// endedWell waits a little for the scheduler to record a worker's end.
func (s *story) endedWell(w aliveWorker) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := s.jobs.wait(ctx, w.job, "a worker's end", func(j *schedulerv1.Job) bool {
		if j.GetEpoch() != w.epoch || w.rank >= len(j.GetWorkers()) {
			return false
		}
		got := j.GetWorkers()[w.rank]
		return got.GetState() == schedulerv1.WorkerState_WORKER_STATE_EXITED && got.GetExitCode() == 0 && got.GetSignal() == 0
	})
	return err == nil
}

// showProgress keeps a person informed until ctx ends.
func (s *story) showProgress(ctx context.Context) error {
	every := 5 * time.Second
	if s.cfg.TTY {
		every = 500 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if s.digits.Load() == 0 {
			continue
		}
		p, err := s.progress(ctx)
		if err != nil || p == nil {
			continue
		}
		held, running, waiting := s.jobs.totals()
		s.view.status(progressLine(p, held, s.report.GPUs, running, waiting))
	}
}

// totals counts GPUs held, jobs that hold them, and jobs that wait.
func (f *follower) totals() (held, running, waiting int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, j := range f.jobs {
		switch j.GetState() {
		case schedulerv1.JobState_JOB_STATE_PENDING:
			waiting++
		case schedulerv1.JobState_JOB_STATE_STARTING, schedulerv1.JobState_JOB_STATE_RUNNING, schedulerv1.JobState_JOB_STATE_STOPPING:
			running++
			held += int(j.GetSpec().GetGpus())
		default: // ended
		}
	}
	return held, running, waiting
}
