package nodeagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/drain"
	"github.com/gangline/gangline/nodeagent/keeper"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/whole"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// wholeNodes is up to how many nodes of a gang each makes a whole copy of what it starts from. Of more nodes each needs so small a part of it that copies for all would load the network with
	// many times what the ranks read; a checkpoint of up to wholeBytes is copied all the same.
	wholeNodes = 8
	wholeBytes = 4 << 30
	// wholeWithin bounds the making of one: what has come by then stays for the next start, and this one reads the shared storage.
	wholeWithin = 3 * time.Minute
)

// errMany says why a gang of many nodes makes no whole copies.
var errMany = errors.New("whole copies are not made")

// nearTensors gives what makes a whole copy, on the node's own disk, of the checkpoint of tensors that a job's ranks here start from; nil: none is to be made.
func (a *Agent) nearTensors(key reconcile.Key, as *agentv1.Assignment) func(context.Context, keeper.Tensors) (string, error) {
	d := a.tiers.drainer
	if d == nil || as.GetEnv()[envLocal] == localNone {
		return nil
	}
	nodes := max(len(as.GetNodes()), 1)
	return func(ctx context.Context, t keeper.Tensors) (string, error) {
		m := &t.Manifest
		if recorded, err := checkpoint.ParseRef(filepath.Base(as.GetResumeFrom())); err == nil && as.GetEnv()[checkpoint.EnvOlder] == checkpoint.RefuseOlder && m.Ref().Compare(recorded) < 0 {
			return "", fmt.Errorf("%w: %s is older than %s, which was committed", errMany, m.Ref(), recorded)
		}
		if bytes := m.ReadBytes(); nodes > wholeNodes && bytes > wholeBytes {
			return "", fmt.Errorf("%w of %d bytes for each of %d nodes: of more than %d nodes each reads what its ranks need", errMany, bytes, nodes, wholeNodes)
		}
		bounded, cancel := context.WithTimeout(ctx, wholeWithin)
		defer cancel()
		path, err := a.makeWhole(bounded, key, t, nodes)
		if err != nil && bounded.Err() != nil && ctx.Err() == nil {
			return "", fmt.Errorf("it took longer than %v, and goes on from there at the next start: %v", wholeWithin, err) //nolint:errorlint // what the end of the time did to it is no damage
		}
		if errors.Is(err, drain.ErrNoRoom) && nodes > 1 {
			// Other nodes may have whole copies, so that nobody else reads all of it where this node's ranks do.
			if verr := t.Verify(ctx); verr != nil {
				return "", errors.Join(err, verr)
			}
		}
		return path, err
	}
}

// makeWhole makes one, and says how in the log.
func (a *Agent) makeWhole(ctx context.Context, key reconcile.Key, t keeper.Tensors, nodes int) (string, error) {
	d, ref := a.tiers.drainer, t.Manifest.Ref()
	if err := d.UseWhole(key.Job, ref); err != nil {
		a.log.Warn("other nodes are not told that this one has a part of the checkpoint to start from: they read it from the shared storage", keyArgs(key, "checkpoint", ref, "err", err)...)
	}
	conns := peerConns{agent: a, job: key.Job, ref: ref, open: map[string]*grpc.ClientConn{}}
	defer conns.close()
	began := time.Now()
	r := whole.Request{
		Dir: d.WholeDir(key.Job), Epoch: key.Epoch, Manifest: t.Manifest, Bytes: t.Bytes, Far: t.Far, Ask: conns.ask,
		Link:  func(name string) (string, bool) { return d.OnDisk(key.Job, ref, name) },
		Room:  func(bytes int64) error { return d.WholeRoom(key.Job, bytes) },
		Peers: func() map[string]string { return d.StartingFrom(key.Job, ref) },
	}
	made, err := a.makeOnce(ctx, r, nodes)
	for _, bad := range made.Bad {
		a.log.Warn("a part of the checkpoint to start from was not good, and is had from elsewhere", keyArgs(key, "err", bad)...)
	}
	if err != nil {
		return "", err
	}
	a.log.Info("the checkpoint to start from is whole on the node's own disk", keyArgs(key, "checkpoint", ref, "path", made.Path, "linked", made.Linked,
		"from nodes", made.FromPeers, "from the shared storage", made.FromFar, "took", time.Since(began).Truncate(time.Millisecond))...)
	return made.Path, nil
}

// makeOnce makes one. A file that is damaged on the shared storage may lie whole on a node that has not said so yet: for a while it asks again.
func (a *Agent) makeOnce(ctx context.Context, r whole.Request, nodes int) (whole.Made, error) {
	grace := time.Now().Add(cmp.Or(a.tiers.grace, damageGrace))
	var bad []error
	for {
		asked := len(r.Peers())
		made, err := a.tiers.wholes.Make(ctx, r)
		made.Bad = append(bad, made.Bad...)
		var damage *checkpoint.CorruptError
		if !errors.As(err, &damage) || asked >= nodes-1 || time.Now().After(grace) {
			return made, err
		}
		bad = made.Bad[:min(len(made.Bad), maxTold)]
		select {
		case <-time.After(wholePoll):
		case <-ctx.Done():
			return made, ctx.Err()
		}
	}
}

// wholePoll is how often a file that is damaged on the shared storage is looked for on other nodes.
const wholePoll = 200 * time.Millisecond

// maxTold bounds what is told of sources that were not good.
const maxTold = 16

// damageGrace is for how long: in it the other agents of the gang have got their launches too.
const damageGrace = 10 * time.Second

// peerConns are connections to other nodes' agents while one copy is made.
type peerConns struct {
	agent *Agent
	job   uint64
	ref   checkpoint.Ref

	mu   sync.Mutex
	open map[string]*grpc.ClientConn
}

func (p *peerConns) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.open { // any order: all of them
		_ = conn.Close() // nothing is under way
	}
}

func (p *peerConns) client(address string) (agentv1.NodeServiceClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn := p.open[address]; conn != nil {
		return agentv1.NewNodeServiceClient(conn), nil
	}
	client, conn, err := p.agent.dialAgent(address)
	if err == nil {
		p.open[address] = conn
	}
	return client, err
}

// ask has another node's agent fill dst from a place of a file on.
func (p *peerConns) ask(ctx context.Context, address, name string, at int64, dst []byte) error {
	client, err := p.client(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.ReadShard(ctx, &agentv1.ReadShardRequest{
		JobId: p.job, File: drain.WholeName(p.ref, name), Offset: at, Bytes: int64(len(dst)),
	})
	if err != nil {
		return err
	}
	_, err = io.ReadFull(&pieces{next: func() ([]byte, error) {
		msg, err := stream.Recv()
		return msg.GetData(), err
	}}, dst)
	if status.Code(err) == codes.NotFound || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", whole.ErrMissing, err)
	}
	return err
}
