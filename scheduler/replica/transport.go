package replica

import (
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// peerTransport notes what each follower answers, and sends one request at a
// time: pipelining wedges after a follower's disk stalled (hashicorp/raft#612)
// and is no faster for packed entries.
type peerTransport struct {
	raft.Transport
	mu    sync.Mutex
	peers map[raft.ServerID]peerState
}

type peerState struct {
	lastLog   uint64
	contact   time.Time
	snapshots uint64 // sent to it since start
}

func newPeerTransport(t raft.Transport) *peerTransport {
	return &peerTransport{Transport: t, peers: map[raft.ServerID]peerState{}}
}

var (
	_ raft.WithPreVote = (*peerTransport)(nil)
	_ raft.WithClose   = (*peerTransport)(nil)
)

// AppendEntriesPipeline declines: Raft then sends one request at a time.
func (t *peerTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries sends entries or a heartbeat.
func (t *peerTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.Transport.AppendEntries(id, target, args, resp)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	p.lastLog, p.contact = resp.LastLog, time.Now()
	t.peers[id] = p
	return nil
}

// InstallSnapshot sends a whole state.
func (t *peerTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	t.mu.Lock()
	p := t.peers[id]
	p.snapshots++
	t.peers[id] = p
	t.mu.Unlock()
	return t.Transport.InstallSnapshot(id, target, args, resp, data)
}

// RequestPreVote asks whether an election could be won, before it disturbs anyone.
func (t *peerTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	pre, ok := t.Transport.(raft.WithPreVote)
	if !ok {
		return raft.ErrUnsupportedProtocol
	}
	return pre.RequestPreVote(id, target, args, resp)
}

// Close closes the connections, if there are any.
func (t *peerTransport) Close() error {
	if c, ok := t.Transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

func (t *peerTransport) peer(id string) peerState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers[raft.ServerID(id)]
}
