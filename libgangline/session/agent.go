package session

import (
	"context"
	"time"

	"github.com/gangline/gangline/nodeagent/workerclient"
)

// reportTimeout bounds a report to the agent: an agent restart takes a second or so.
const reportTimeout = 10 * time.Second

// Environment gives the place of this process in its job.
func (s *Session) Environment() (workerclient.Environment, error) {
	client, _, err := s.worker()
	if err != nil {
		return workerclient.Environment{}, err
	}
	return client.Environment(), nil
}

// ReportProgress tells the agent how far the training is. It never waits, and only the latest report counts.
func (s *Session) ReportProgress(p workerclient.Progress) error {
	client, _, err := s.worker()
	if err != nil {
		return err
	}
	client.ReportProgress(p)
	return nil
}

// ReportPeerLost tells the agent that this process is about to end because it lost a rank, so that the job starts again without blame
// for this one.
func (s *Session) ReportPeerLost(rank int, cause string) error {
	client, _, err := s.worker()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
	defer cancel()
	return client.ReportPeerLost(ctx, rank, cause)
}

// NewestFormation returns the newest formation that the agent told of, 0 while it told of none. If it is above the group's, a worker waits to join, or one was
// lost: leave the group, on all ranks after the same step, and join again.
func (s *Session) NewestFormation() (int, error) {
	client, _, err := s.worker()
	if err != nil {
		return 0, err
	}
	return client.Formation(), nil
}

// SaveDue says whether to save now, by the job's checkpoint policy; known is false where the job leaves it to the program. One rank asks, and tells the
// others. It waits a second at most.
func (s *Session) SaveDue(step int64) (due, known bool, err error) {
	client, _, err := s.worker()
	if err != nil {
		return false, false, err
	}
	due, known = client.SaveDue(context.Background(), step)
	return due, known, nil
}

// ReportCheckpoint tells the agent of a committed checkpoint.
func (s *Session) ReportCheckpoint(c workerclient.Checkpoint) error {
	client, _, err := s.worker()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
	defer cancel()
	return client.ReportCheckpoint(ctx, c)
}
