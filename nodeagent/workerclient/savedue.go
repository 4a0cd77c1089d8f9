package workerclient

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// askTimeout bounds a question that a training step waits for.
	askTimeout = time.Second
	// askAgain is the wait after a question that nobody answered: an agent that is away or hangs must not slow each step down.
	askAgain = 10 * time.Second
)

// saveDue is what the agent last said of when to save. Guarded by Client.mu.
type saveDue struct {
	known    bool // the agent has said something
	interval time.Duration
	steps    int64
	nextAt   time.Time // no save is due by time before
	nextStep int64     // no save is due by steps before
	quiet    time.Time // nobody is asked before
}

// SaveDue tells whether to save now, step steps having been done since the start of the job, by the job's checkpoint policy. known is false where the job
// leaves it to the program, as outside Gangline. One rank asks, after each step or as often as it likes, and tells the others; a save that is due is told once.
// It asks the agent only when a save may be due, and then waits at most a second; while the agent is away it goes by the last answer.
func (c *Client) SaveDue(ctx context.Context, step int64) (due, known bool) {
	if c.conn == nil || c.env.CheckpointInterval == "" {
		return false, false
	}
	now := time.Now()
	c.mu.Lock()
	last := c.save
	c.mu.Unlock()
	if last.known && (last.steps > 0 && step < last.nextStep || last.steps == 0 && now.Before(last.nextAt)) {
		return false, true
	}
	next := last
	var err error
	if now.After(last.quiet) {
		next, due, err = c.askSaveDue(ctx, step, now)
	}
	switch {
	case status.Code(err) == codes.Unimplemented: // an agent of an older release
		return false, false
	case err != nil:
		next = last
		next.quiet = now.Add(askAgain)
	}
	if next.known && (err != nil || !now.After(last.quiet)) {
		due = true // by the last answer it is: what that asked to wait for has passed
		next.nextAt, next.nextStep = now.Add(next.interval), step+1
		if next.steps > 0 {
			next.nextStep = (step/next.steps + 1) * next.steps
		}
	}
	c.mu.Lock()
	c.save = next
	c.mu.Unlock()
	return due, true
}

// askSaveDue asks the agent.
func (c *Client) askSaveDue(ctx context.Context, step int64, now time.Time) (saveDue, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a, err := c.agent.SaveDue(ctx, &agentv1.SaveDueRequest{Step: step})
	if err != nil {
		return saveDue{}, false, err
	}
	return saveDue{
		known: true, interval: time.Duration(a.GetIntervalMs()) * time.Millisecond, steps: a.GetIntervalSteps(),
		nextAt: now.Add(time.Duration(a.GetWaitMs()) * time.Millisecond), nextStep: a.GetWaitStep(),
	}, a.GetDue(), nil
}
