package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxControlLine bounds a request or an answer; a status is about 1 KiB.
	maxControlLine = 64 << 10
	// maxControlConns bounds the callers of one supervisor: the agent needs two.
	maxControlConns = 16
	// controlWait bounds every answer and every write, so that a frozen agent cannot keep a supervisor alive.
	controlWait = 5 * time.Second
)

// Operations of the control protocol: one JSON object per line, both ways.
const (
	opStatus    = "status"    // answers once
	opSubscribe = "subscribe" // answers now and after every change, until the supervisor ends
	opStop      = "stop"      // merges a Stop, answers once
	opKill      = "kill"      // SIGKILL at once; a Stop with no waits
)

type controlRequest struct {
	Op   string `json:"op"`
	Stop Stop   `json:"stop,omitzero"`
}

type controlAnswer struct {
	Status *Status `json:"status,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// board is the supervisor's present status, for any goroutine to read, and the stops that came in.
type board struct {
	stops   chan Stop
	done    chan struct{} // closed when the supervisor ends
	dropped func() int64

	mu      sync.Mutex
	status  Status
	changed chan struct{} // closed and replaced at every change
}

func newBoard(st Status, dropped func() int64) *board {
	return &board{
		status: st, dropped: dropped,
		stops: make(chan Stop), done: make(chan struct{}), changed: make(chan struct{}),
	}
}

// get returns the status with the drop count of this moment.
func (b *board) get() Status {
	st, _ := b.watch()
	return st
}

// watch returns the status and a channel that closes at the next change.
func (b *board) watch() (Status, <-chan struct{}) {
	dropped := b.dropped()
	b.mu.Lock()
	defer b.mu.Unlock()
	st := b.status
	st.DroppedLogBytes = dropped
	return st, b.changed
}

func (b *board) set(st Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = st
	close(b.changed)
	b.changed = make(chan struct{})
}

// stop hands a request to the supervisor's main loop; once every process is gone there is nothing left to stop.
func (b *board) stop(s Stop) error {
	s, err := s.check()
	if err != nil {
		return err
	}
	for {
		st, changed := b.watch()
		if st.State == Exited {
			return nil
		}
		select {
		case b.stops <- s:
			return nil
		case <-changed:
		case <-b.done:
			return nil
		case <-time.After(controlWait):
			return errors.New("the supervisor does not take the request: try again")
		}
	}
}

// controlServer answers on the control socket. Permissions of the worker's directory (0700) guard it.
type controlServer struct {
	board    *board
	listener net.Listener
	wg       sync.WaitGroup
	slots    chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// startControl listens in the current directory, so that the path's length never matters.
func startControl(b *board) (*controlServer, error) {
	l, err := net.Listen("unix", socketFile)
	if err != nil {
		return nil, err
	}
	c := &controlServer{board: b, listener: l, slots: make(chan struct{}, maxControlConns), conns: map[net.Conn]bool{}}
	c.wg.Go(c.accept)
	return c, nil
}

// close lets subscribers read the last status, then ends every connection.
func (c *controlServer) close() {
	close(c.board.done)
	_ = c.listener.Close() // removes the socket file too
	c.mu.Lock()
	for conn := range c.conns {
		_ = conn.SetReadDeadline(time.Now())
	}
	c.mu.Unlock()
	c.wg.Wait()
}

func (c *controlServer) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			if isClosed(c.board.done) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, say: the next try may work
			continue
		}
		select {
		case c.slots <- struct{}{}:
		default:
			_ = conn.Close() // too many: the caller tries again
			continue
		}
		c.mu.Lock()
		c.conns[conn] = true
		if isClosed(c.board.done) {
			_ = conn.SetReadDeadline(time.Now())
		}
		c.mu.Unlock()
		c.wg.Go(func() {
			c.serve(conn)
			c.mu.Lock()
			delete(c.conns, conn)
			c.mu.Unlock()
			_ = conn.Close()
			<-c.slots
		})
	}
}

// serve answers requests of one connection in order.
func (c *controlServer) serve(conn net.Conn) {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxControlLine)
	for lines.Scan() {
		var req controlRequest
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			_ = send(conn, controlAnswer{Error: "not a request: " + err.Error()})
			return
		}
		var err error
		switch req.Op {
		case opStatus:
		case opStop:
			err = c.board.stop(req.Stop)
		case opKill:
			err = c.board.stop(Stop{Reason: req.Stop.Reason})
		case opSubscribe:
			c.push(conn)
			return
		default:
			err = fmt.Errorf("operation %q is unknown", req.Op)
		}
		st := c.board.get()
		answer := controlAnswer{Status: &st}
		if err != nil {
			answer = controlAnswer{Error: err.Error()}
		}
		if send(conn, answer) != nil {
			return
		}
	}
}

// push sends the status now and at every change; changes in quick succession may share a line. It ends when the
// subscriber hangs up, so that agents which come and go do not use up the slots of a worker that never changes.
func (c *controlServer) push(conn net.Conn) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn) // a subscriber says nothing more: the end of its silence is all that matters
	}()
	defer func() {
		_ = conn.SetReadDeadline(time.Now()) // an error means that it is closed
		<-gone
	}()
	for last := false; ; {
		st, changed := c.board.watch()
		if send(conn, controlAnswer{Status: &st}) != nil || st.Durable || last {
			return
		}
		select {
		case <-changed:
		case <-c.board.done:
			last = true
		case <-gone:
			if last = isClosed(c.board.done); !last { // close ends reading too, and the last status is still owed
				return
			}
		}
	}
}

func send(conn net.Conn, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(controlWait)); err != nil {
		return err
	}
	_, err = conn.Write(append(data, '\n'))
	return err
}

// dialControl connects to the supervisor of dir. The address goes through a descriptor of the directory, because a
// socket's path may have 107 bytes at most.
func dialControl(ctx context.Context, dir string) (net.Conn, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	ctx, cancel := context.WithTimeout(ctx, controlWait)
	defer cancel()
	var d net.Dialer
	return d.DialContext(ctx, "unix", filepath.Join(fmt.Sprintf("/proc/self/fd/%d", fd), socketFile))
}

// callControl sends one request and returns the answer.
func callControl(ctx context.Context, dir string, req controlRequest) (Status, error) {
	conn, err := dialControl(ctx, dir)
	if err != nil {
		return Status{}, err
	}
	defer conn.Close() //nolint:errcheck // the answer is in
	if err := conn.SetReadDeadline(time.Now().Add(2 * controlWait)); err != nil {
		return Status{}, err
	}
	if err := send(conn, req); err != nil {
		return Status{}, err
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxControlLine)
	if !lines.Scan() {
		return Status{}, errors.Join(errors.New("the supervisor closed the connection"), lines.Err())
	}
	var answer controlAnswer
	if err := json.Unmarshal(lines.Bytes(), &answer); err != nil {
		return Status{}, err
	}
	if answer.Error != "" || answer.Status == nil {
		return Status{}, errors.New("the supervisor refused: " + answer.Error)
	}
	return *answer.Status, nil
}
