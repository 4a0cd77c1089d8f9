package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// maxSnapshotBytes bounds a snapshot in memory: a cluster at its limits has about half of it.
const maxSnapshotBytes = 1 << 30

// snapshot is a cluster at a moment, without what only its users need.
type snapshot struct {
	state    *cluster.State
	at       cluster.Time
	encoding uint32
	bytes    []byte
}

// snapshotHead is the first line of a file of a snapshot, once it is unpacked; the bytes follow.
type snapshotHead struct {
	Format   string       `json:"format"`
	Encoding uint32       `json:"encoding"`
	At       cluster.Time `json:"at_unix_ns"`
	Bytes    int          `json:"bytes"`
}

// snapshotFormat names the format, for who finds such a file.
const snapshotFormat = "gangline snapshot 1"

// snapshot reads a file, or asks the live cluster if there is none.
func (a *app) snapshot(ctx context.Context, file string) (*snapshot, error) {
	var s *snapshot
	var err error
	if file != "" {
		if s, err = readSnapshot(file); err != nil {
			return nil, usage("%s: %w", file, err)
		}
	} else if s, err = a.takeSnapshot(ctx); err != nil {
		return nil, err
	}
	if s.state, err = cluster.Decode(s.bytes, s.encoding); err != nil {
		return nil, fmt.Errorf("the snapshot: %w", err)
	}
	return s, nil
}

// takeSnapshot asks the live cluster.
func (a *app) takeSnapshot(ctx context.Context) (*snapshot, error) {
	s := &snapshot{}
	err := a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
		stream, err := c.GetSnapshot(ctx, &schedulerv1.GetSnapshotRequest{})
		if err != nil {
			return err
		}
		want := uint64(0)
		for first := true; ; first = false {
			m, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF) && uint64(len(s.bytes)) == want && !first:
				return nil
			case errors.Is(err, io.EOF):
				return fmt.Errorf("the snapshot was cut off: %d of %d bytes came", len(s.bytes), want)
			case err != nil:
				return err
			}
			if first {
				s.at, s.encoding, want = cluster.Time(m.GetAtUnixNs()), m.GetEncoding(), m.GetBytes()
			}
			if s.bytes = append(s.bytes, m.GetState()...); len(s.bytes) > maxSnapshotBytes {
				return fmt.Errorf("the snapshot has more than %d bytes", maxSnapshotBytes)
			}
		}
	})
	return s, err
}

// write keeps the snapshot in a file, packed. The file has names of users, queues, jobs and nodes.
func (s *snapshot) write(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // G304: the user names the file
	if err != nil {
		return &exitError{exitUsage, err}
	}
	z := gzip.NewWriter(f)
	err = json.NewEncoder(z).Encode(snapshotHead{snapshotFormat, s.encoding, s.at, len(s.bytes)})
	if err == nil {
		_, err = z.Write(s.bytes)
	}
	if err := errors.Join(err, z.Close(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

func readSnapshot(file string) (*snapshot, error) {
	f, err := os.Open(file) //nolint:gosec // G304: the user names the file
	if err != nil {
		return nil, err
	}
	defer f.Close()
	notOurs := errors.New("is not a snapshot that \"gangline sim whatif --save\" wrote")
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, notOurs
	}
	in := bufio.NewReader(z)
	line, err := in.ReadBytes('\n')
	var head snapshotHead
	if err != nil || json.Unmarshal(line, &head) != nil || head.Format != snapshotFormat {
		return nil, notOurs
	}
	var all bytes.Buffer
	if _, err := io.Copy(&all, io.LimitReader(in, maxSnapshotBytes)); err != nil {
		return nil, fmt.Errorf("is cut off or damaged after %d of %d bytes: %w", all.Len(), head.Bytes, err)
	}
	if all.Len() != head.Bytes {
		return nil, fmt.Errorf("has %d bytes, not the %d that it names", all.Len(), head.Bytes)
	}
	return &snapshot{at: head.At, encoding: head.Encoding, bytes: all.Bytes()}, nil
}
