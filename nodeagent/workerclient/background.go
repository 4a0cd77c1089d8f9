package workerclient

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// sendProgress sends the latest progress, again and again until the agent took it or a newer one came.
func (c *Client) sendProgress() {
	defer c.wg.Done()
	for {
		select {
		case <-c.wake:
		case <-c.ctx.Done():
			return
		}
		select {
		case c.sending <- struct{}{}:
		case <-c.ctx.Done():
			return
		}
		c.mu.Lock()
		latest := c.progress
		c.mu.Unlock()
		if latest == nil {
			<-c.sending
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, callTimeout)
		_, err := c.agent.ReportProgress(ctx, &agentv1.ReportProgressRequest{Progress: latest}, grpc.WaitForReady(true))
		cancel()
		<-c.sending
		if err == nil || !passing(err) {
			// What the agent refuses (too many metrics) it would refuse again.
			c.mu.Lock()
			if c.progress == latest {
				c.progress = nil
			}
			c.mu.Unlock()
		} else {
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
		if !pause(c.ctx, progressEvery) {
			return
		}
	}
}

// ringEvery is how often the agent hears of the ring.
const ringEvery = 2 * time.Second

// sendRing tells the agent of the ring as long as it changes.
func (c *Client) sendRing() {
	defer c.wg.Done()
	var told Ring
	for pause(c.ctx, ringEvery) {
		c.mu.Lock()
		stats := c.ring
		c.mu.Unlock()
		if stats == nil {
			continue
		}
		now := stats()
		if now == told {
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, callTimeout)
		_, err := c.agent.ReportRing(ctx, &agentv1.ReportRingRequest{Ring: &agentv1.Ring{
			Calls: now.Calls, Bytes: now.Bytes, BusyNs: now.Busy.Nanoseconds(),
		}})
		cancel()
		if status.Code(err) == codes.Unimplemented {
			return // an agent of an older release
		}
		if err == nil {
			told = now
		}
	}
}

// watchNotices keeps a stream of notices open, across agent restarts.
func (c *Client) watchNotices() {
	defer c.wg.Done()
	var last Notice
	for wait := retryMin; c.ctx.Err() == nil; wait = min(2*wait, retryMax) {
		stream, err := c.agent.WatchNotices(c.ctx, &agentv1.WatchNoticesRequest{}, grpc.WaitForReady(true))
		for err == nil {
			var msg *agentv1.WatchNoticesResponse
			if msg, err = stream.Recv(); err == nil && msg.GetReform() != nil {
				c.learn(msg.GetReform().GetFormation())
			}
			if err != nil || msg.GetStop() == nil {
				continue
			}
			wait = retryMin
			now := time.Now()
			notice := Notice{
				Reason:    msg.GetStop().GetReason(),
				Terminate: now.Add(time.Duration(msg.GetStop().GetTerminateInMs()) * time.Millisecond),
				Kill:      now.Add(time.Duration(msg.GetStop().GetKillInMs()) * time.Millisecond),
			}
			if !repeats(notice, last) {
				last = notice
				c.deliver(notice)
			}
		}
		pause(c.ctx, wait)
	}
}

// learn takes a formation that the agent told of. Only watchNotices calls it.
func (c *Client) learn(formation int32) {
	if formation <= c.formation.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.formation.Store(formation)
	close(c.reformed)
	c.reformed = make(chan struct{})
}

// repeats tells whether a notice says again what last said: an agent that came back starts from the beginning.
func repeats(n, last Notice) bool {
	return n.Reason == last.Reason &&
		n.Terminate.Sub(last.Terminate).Abs() < sameNotice && n.Kill.Sub(last.Kill).Abs() < sameNotice
}

// deliver puts a notice into the channel; the oldest gives way. Only watchNotices calls it.
func (c *Client) deliver(n Notice) {
	for {
		select {
		case c.notices <- n:
			return
		default:
		}
		select {
		case <-c.notices:
		default:
		}
	}
}
