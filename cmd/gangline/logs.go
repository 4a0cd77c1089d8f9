package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) logsCmd() *cobra.Command {
	var follow, stderr, stdout bool
	var tail int32
	var epoch uint64
	cmd := &cobra.Command{
		Use:   "logs JOB[/RANK]",
		Short: "Print a job's output",
		Long: `Print what the workers of a job have printed; standard output and standard error
both go to standard output, each line led by its rank where there are several.
With --json, each piece is an object {"rank","epoch","stream","data"}.`,
		Args: exactArgs(1, "one job number, or JOB/RANK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			jobText, rankText, hasRank := strings.Cut(args[0], "/")
			id, err := parseJobID(jobText)
			if err != nil {
				return err
			}
			req := &schedulerv1.StreamLogsRequest{JobId: id, Epoch: epoch, Follow: follow, TailLines: tail}
			if hasRank {
				r, err := strconv.ParseInt(rankText, 10, 32)
				if err != nil || r < 0 {
					return usage("%q is not a rank: ranks are 0, 1, 2 and so on, as in %d/0", rankText, id)
				}
				rank := int32(r)
				req.Rank = &rank
			}
			switch {
			case stderr && !stdout:
				req.Stream = schedulerv1.LogStream_LOG_STREAM_STDERR
			case stdout && !stderr:
				req.Stream = schedulerv1.LogStream_LOG_STREAM_STDOUT
			}
			// A call with --timeout first: a stream has no deadline.
			err = a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
				_, err := c.GetJob(ctx, &schedulerv1.GetJobRequest{Id: id})
				return err
			})
			if err != nil {
				return err
			}
			c, done, err := a.dial()
			if err != nil {
				return err
			}
			defer done()
			return a.streamLogs(cmd.Context(), c, req, true)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on until the job has ended, through its restarts")
	f.BoolVar(&stderr, "stderr", false, "only standard error")
	f.BoolVar(&stdout, "stdout", false, "only standard output")
	f.Int32Var(&tail, "tail", 0, "only the last lines of each worker (0: all)")
	f.Uint64Var(&epoch, "epoch", 0, "only this launch of the job (0: the last one)")
	return cmd
}

// Reconnects of a log stream: about a minute in a row without a byte.
const (
	logPause = 500 * time.Millisecond
	logTries = 60
)

// streamLogs prints a job's output. A server that goes away is replaced by
// another one, and what was printed is not printed again. jobNotes tells people
// what the job waits for, which those who also watch its states know.
func (a *app) streamLogs(ctx context.Context, c schedulerv1.SchedulerServiceClient, req *schedulerv1.StreamLogsRequest, jobNotes bool) error {
	p := &logPrinter{jobNotes: jobNotes, out: a.out, lines: map[logSource][]byte{}, got: map[logSource]int64{}, prefix: req.Rank == nil}
	failures := 0
	for {
		before := p.total
		err := a.streamLogsOnce(ctx, c, req, p)
		code, _ := exitCode(err)
		switch {
		case err == nil:
			return p.flush()
		case ctx.Err() != nil, code != exitUnavailable, failures > logTries:
			return errors.Join(err, p.flush())
		case p.total > before:
			failures = 0
		}
		if failures++; failures == 1 {
			a.statef("gangline: the server broke off the output: asks another one")
			if req.GetTailLines() > 0 && p.total > 0 {
				a.statef("gangline: lines may come twice")
			}
		}
		select {
		case <-time.After(logPause):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), p.flush())
		}
	}
}

func (a *app) streamLogsOnce(ctx context.Context, c schedulerv1.SchedulerServiceClient, req *schedulerv1.StreamLogsRequest, p *logPrinter) error {
	stream, err := c.StreamLogs(ctx, req)
	if err != nil {
		return err
	}
	p.skip = nil
	if req.GetTailLines() == 0 {
		p.skip = maps.Clone(p.got) // where "the last lines" began is not known
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Data = p.fresh(m); len(m.GetData()) == 0 && m.GetNote() == "" {
			continue
		}
		switch {
		case a.json:
			err = printLogJSON(a.out, m)
		case m.GetNote() != "" && m.GetRank() < 0:
			if p.jobNotes {
				a.statef("gangline: %s", m.GetNote())
			}
		case m.GetNote() != "":
			a.statef("gangline: rank %d: %s", m.GetRank(), m.GetNote())
		default:
			err = p.print(m)
		}
		if err != nil {
			return &exitError{exitFailure, fmt.Errorf("print output: %w", err)}
		}
	}
}

func printLogJSON(w io.Writer, m *schedulerv1.StreamLogsResponse) error {
	stream := "stdout"
	if m.GetStream() == schedulerv1.LogStream_LOG_STREAM_STDERR {
		stream = "stderr"
	}
	return json.NewEncoder(w).Encode(struct {
		Rank   int32  `json:"rank"`
		Epoch  uint64 `json:"epoch"`
		Stream string `json:"stream"`
		Data   string `json:"data,omitempty"`
		Note   string `json:"note,omitempty"`
	}{m.GetRank(), m.GetEpoch(), stream, string(m.GetData()), m.GetNote()})
}

type logSource struct {
	rank   int32
	epoch  uint64
	stream schedulerv1.LogStream
}

// maxLine bounds what is kept of a line that does not end.
const maxLine = 64 << 10

// logPrinter prints whole lines, led by the rank where there are several.
type logPrinter struct {
	out   io.Writer
	lines map[logSource][]byte // what each source has printed of its last line
	order []logSource
	got   map[logSource]int64 // bytes received of each source
	skip  map[logSource]int64 // bytes that come again on a new stream
	total int64

	prefix, jobNotes bool
}

// fresh returns what of a message was not received before.
func (p *logPrinter) fresh(m *schedulerv1.StreamLogsResponse) []byte {
	src, data := logSource{m.GetRank(), m.GetEpoch(), m.GetStream()}, m.GetData()
	n := min(p.skip[src], int64(len(data)))
	if n > 0 {
		p.skip[src] -= n
		data = data[n:]
	}
	p.got[src] += int64(len(data))
	p.total += int64(len(data))
	return data
}

func (p *logPrinter) print(m *schedulerv1.StreamLogsResponse) error {
	src := logSource{m.GetRank(), m.GetEpoch(), m.GetStream()}
	if _, known := p.lines[src]; !known {
		p.order = append(p.order, src)
	}
	buf := append(p.lines[src], m.GetData()...)
	for {
		i := bytes.IndexByte(buf, '\n')
		if i < 0 && len(buf) < maxLine {
			break
		}
		if i < 0 {
			i = len(buf) - 1
		}
		if err := p.line(src, buf[:i+1]); err != nil {
			return err
		}
		buf = buf[i+1:]
	}
	p.lines[src] = bytes.Clone(buf)
	return nil
}

func (p *logPrinter) line(src logSource, b []byte) error {
	if p.prefix {
		if _, err := fmt.Fprintf(p.out, "[%d] ", src.rank); err != nil {
			return err
		}
	}
	if !bytes.HasSuffix(b, []byte("\n")) {
		b = append(bytes.Clone(b), '\n')
	}
	_, err := p.out.Write(b)
	return err
}

// flush prints lines that never ended.
func (p *logPrinter) flush() error {
	for _, src := range p.order {
		if len(p.lines[src]) > 0 {
			if err := p.line(src, p.lines[src]); err != nil {
				return err
			}
		}
	}
	return nil
}
