package workerclient

import (
	"context"

	"google.golang.org/grpc"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// tellCheckpoint tells the agent of a checkpoint, until ctx ends.
func (c *Client) tellCheckpoint(ctx context.Context, req *agentv1.ReportCheckpointRequest) error {
	err := c.insist(ctx, func(ctx context.Context) error {
		_, err := c.agent.ReportCheckpoint(ctx, req, grpc.WaitForReady(true))
		return err
	})
	if err == nil {
		c.told(req)
	}
	return err
}

// told forgets what the agent need not hear of any more.
func (c *Client) told(req *agentv1.ReportCheckpointRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.untold != nil && c.untold.GetCheckpoint().GetStep() <= req.GetCheckpoint().GetStep() {
		c.untold = nil
	}
}

// tellLater goes on to tell of a checkpoint behind the caller's back, who has given up waiting for the agent. Of several the newest is enough.
func (c *Client) tellLater(req *agentv1.ReportCheckpointRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	telling := c.untold != nil
	if !telling || c.untold.GetCheckpoint().GetStep() < req.GetCheckpoint().GetStep() {
		c.untold = req
	}
	if !telling && !c.closed {
		c.wg.Go(c.tellUntold)
	}
}

// tellUntold ends when there is nothing left to tell, or with the client. What the agent refuses it is not asked again.
func (c *Client) tellUntold() {
	for {
		c.mu.Lock()
		req := c.untold
		c.mu.Unlock()
		if req == nil {
			return
		}
		if err := c.tellCheckpoint(c.ctx, req); err != nil {
			if c.ctx.Err() != nil {
				return
			}
			c.told(req)
		}
	}
}
