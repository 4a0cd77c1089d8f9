package workerclient

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// admitTimeout bounds the question whether a checkpoint may be saved: the agent may have to remove others first.
const admitTimeout = 2 * time.Minute

// RefusedError says why a checkpoint may not be committed. It is no reason to stop training.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// AdmitCheckpoint asks whether a checkpoint of about so many bytes may be saved, by the limit of the job's user; older ones are removed for it if need be. A
// *RefusedError says no and why: train on. An agent that is away, or does not know the question, refuses nothing.
func (c *Client) AdmitCheckpoint(ctx context.Context, step, bytes int64) error {
	if c.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	_, err := c.agent.AdmitCheckpoint(ctx, &agentv1.AdmitCheckpointRequest{Step: step, Bytes: bytes})
	if status.Code(err) == codes.ResourceExhausted {
		return &RefusedError{Why: fmt.Sprintf("the checkpoint of step %d is not saved: %s", step, status.Convert(err).Message())}
	}
	return nil // whatever else went wrong, the limit is no reason to lose work
}
