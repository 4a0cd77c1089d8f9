package replica

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	raftlogv1 "github.com/gangline/gangline/proto/gangline/raftlog/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// A snapshot is snapshotMagic, the header's length as 4 bytes big-endian, a
// SnapshotHeader, and the state's bytes as cluster.State.Encode wrote them.
const (
	snapshotMagic     = "GLSNAP1\n"
	maxSnapshotHeader = 64 << 10
	maxSnapshotState  = 8 << 30 // a state beyond this does not fit a server's memory either
)

// snapshot writes a published state; no one changes it meanwhile.
type snapshot struct{ state *cluster.State }

// Persist encodes the state twice, first to know its length and checksum: that
// costs time off the path of Apply, but no memory for a second copy.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := writeSnapshot(sink, s.state); err != nil {
		return errors.Join(fmt.Errorf("write snapshot at index %d: %w", s.state.Index(), err), sink.Cancel())
	}
	return sink.Close()
}

// Release does nothing: the collector frees the state.
func (s *snapshot) Release() {}

func writeSnapshot(w io.Writer, state *cluster.State) error {
	sum, size := xxh3.New(), uint64(0)
	err := state.Encode(func(b []byte) error {
		size += uint64(len(b))
		_, err := sum.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	header, err := proto.Marshal(&raftlogv1.SnapshotHeader{
		Version: cluster.Version, Index: state.Index(), ClusterId: state.ClusterID(),
		StateBytes: size, StateChecksum: sum.Sum64(),
	})
	if err != nil {
		return err
	}
	lead := binary.BigEndian.AppendUint32([]byte(snapshotMagic), uint32(len(header)))
	if _, err := w.Write(append(lead, header...)); err != nil {
		return err
	}
	return state.Encode(func(b []byte) error {
		_, err := w.Write(b)
		return err
	})
}

// readSnapshot reads and verifies a whole snapshot, or changes nothing.
func readSnapshot(r io.Reader, release string) (*cluster.State, error) {
	br := bufio.NewReader(r)
	lead := make([]byte, len(snapshotMagic)+4)
	if _, err := io.ReadFull(br, lead); err != nil {
		return nil, fmt.Errorf("snapshot is cut off in its first bytes: %w", err)
	}
	if string(lead[:len(snapshotMagic)]) != snapshotMagic {
		return nil, errors.New("snapshot does not begin as Gangline's do: it is damaged or something else's")
	}
	n := binary.BigEndian.Uint32(lead[len(snapshotMagic):])
	if n > maxSnapshotHeader {
		return nil, fmt.Errorf("snapshot header of %d bytes is damaged", n)
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(br, raw); err != nil {
		return nil, fmt.Errorf("snapshot is cut off in its header: %w", err)
	}
	var h raftlogv1.SnapshotHeader
	if err := proto.Unmarshal(raw, &h); err != nil {
		return nil, fmt.Errorf("snapshot header is damaged: %w", err)
	}
	if h.GetVersion() == 0 {
		return nil, errors.New("snapshot header names no encoding: it is damaged")
	}
	if h.GetVersion() > cluster.Version {
		return nil, fmt.Errorf("snapshot at index %d is in encoding %d, but %s knows only up to %d: run the release that the other servers run", h.GetIndex(), h.GetVersion(), release, cluster.Version)
	}
	return readState(br, &h)
}

func readState(r io.Reader, h *raftlogv1.SnapshotHeader) (*cluster.State, error) {
	if h.GetStateBytes() > maxSnapshotState {
		return nil, fmt.Errorf("snapshot at index %d claims a state of %d bytes: it is damaged", h.GetIndex(), h.GetStateBytes())
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(h.GetStateBytes())+1))
	if err != nil {
		return nil, fmt.Errorf("read snapshot at index %d: %w", h.GetIndex(), err)
	}
	if got := uint64(len(body)); got != h.GetStateBytes() {
		return nil, fmt.Errorf("snapshot at index %d has %d or more bytes of state instead of %d: it is damaged", h.GetIndex(), got, h.GetStateBytes())
	}
	if got := xxh3.Hash(body); got != h.GetStateChecksum() {
		return nil, fmt.Errorf("snapshot at index %d has checksum %016x instead of %016x: it is damaged", h.GetIndex(), got, h.GetStateChecksum())
	}
	state, err := cluster.Decode(body, h.GetVersion())
	if err != nil {
		return nil, fmt.Errorf("snapshot at index %d: %w", h.GetIndex(), err)
	}
	if state.Index() != h.GetIndex() || state.ClusterID() != h.GetClusterId() {
		return nil, fmt.Errorf("snapshot says index %d of cluster %s but holds index %d of cluster %s: it is damaged",
			h.GetIndex(), h.GetClusterId(), state.Index(), state.ClusterID())
	}
	return state, nil
}
