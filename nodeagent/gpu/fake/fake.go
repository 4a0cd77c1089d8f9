package fake

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// driverVersion is what emulated GPUs show; the word tells a reader of a report that no driver is behind it.
const driverVersion = "emulated"

// errClosed is returned by every call after Close.
var errClosed = errors.New("emulated GPUs: the prober is closed")

// Config says what to emulate.
type Config struct {
	// Node is the node's name; it goes into the UUIDs, so that no two nodes share one. Required.
	Node string
	// Spec names the GPUs; Kind must be gpu.KindFake.
	Spec gpu.Spec
	// Busy tells whether a worker uses the GPU with this UUID now; it is called without a lock held and must
	// not block. Nil: never busy.
	Busy func(uuid string) bool
	// Now is the clock that the readings follow. Required.
	Now func() time.Time
}

// Prober emulates GPUs; safe for concurrent use. SetHealth lets a test or a demonstration break one.
type Prober struct {
	busy func(uuid string) bool
	now  func() time.Time

	mu     sync.Mutex
	gpus   []gpu.GPU
	closed bool
}

var _ gpu.Prober = (*Prober)(nil)

// New builds the GPUs that cfg names. It fails on a type without known figures unless the spec gives a memory
// size, and on a missing node name or clock.
func New(cfg Config) (*Prober, error) {
	if cfg.Spec.Kind != gpu.KindFake {
		return nil, fmt.Errorf("emulate GPUs: spec kind is %q, want %q", cfg.Spec.Kind, gpu.KindFake)
	}
	if cfg.Node == "" || cfg.Now == nil {
		return nil, errors.New("emulate GPUs: config needs a node name and a clock")
	}
	p := &Prober{busy: cfg.Busy, now: cfg.Now}
	island := 0 // the next free number
	for _, group := range cfg.Spec.Groups {
		prod, known := productOf(group.Type)
		if !known && cfg.Spec.MemBytes == 0 {
			return nil, fmt.Errorf("emulate GPUs: memory size of type %q is not known: add :memory=80GiB or use one of %s",
				group.Type, strings.Join(Types(), " "))
		}
		if !known {
			prod.name = "Emulated " + group.Type
		}
		mem := cfg.Spec.MemBytes
		if mem == 0 {
			mem = prod.memMiB << 20
		}
		for i := range group.Count {
			g := newGPU(cfg, len(p.gpus), group.Type, prod.name, mem)
			if g.Island = island; group.Island > 0 {
				g.Island += i / group.Island
			}
			p.gpus = append(p.gpus, g)
		}
		island = p.gpus[len(p.gpus)-1].Island + 1
	}
	return p, nil
}

func newGPU(cfg Config, index int, typ, name string, mem int64) gpu.GPU {
	uuid := UUID(cfg.Node, cfg.Spec.Seed, index)
	if _, _, instance := gpu.SplitInstanceType(typ); instance {
		uuid = "MIG" + strings.TrimPrefix(uuid, "GPU")
	}
	return gpu.GPU{
		UUID: uuid, Index: index, Minor: index,
		PCIBusID: fmt.Sprintf("0000:%02x:00.0", index), Type: typ, Name: name, MemBytes: mem,
		// Two sockets, as in most 8-GPU servers: the second half of each eight hangs off the second.
		NUMANode: index % 8 / 4, DriverVersion: driverVersion, Health: gpu.Health{Healthy: true},
	}
}

// UUID returns the identity of an emulated GPU in NVML form, derived from node, seed and index alone. That of an
// emulated MIG instance begins with MIG instead of GPU.
func UUID(node string, seed uint64, index int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "gangline emulated gpu\n%q %d %d", node, seed, index))
	h[6] = h[6]&0x0f | 0x80 // RFC 9562 version 8: made by a rule of our own
	h[8] = h[8]&0x3f | 0x80 // RFC 9562 variant
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// GPUs returns the emulated inventory.
func (p *Prober) GPUs(ctx context.Context) ([]gpu.GPU, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list emulated GPUs: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	return append([]gpu.GPU(nil), p.gpus...), nil
}

// Samples reads every healthy GPU; an unhealthy one reports nothing.
func (p *Prober) Samples(ctx context.Context) ([]gpu.Sample, error) {
	gpus, err := p.GPUs(ctx)
	if err != nil {
		return nil, err
	}
	second := p.now().Unix()
	samples := make([]gpu.Sample, 0, len(gpus))
	for _, g := range gpus {
		if !g.Health.Healthy {
			continue
		}
		samples = append(samples, reading(g, p.busy != nil && p.busy(g.UUID), second))
	}
	return samples, nil
}

// SetHealth changes the health of one GPU from the next call on.
func (p *Prober) SetHealth(uuid string, h gpu.Health) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.gpus {
		if p.gpus[i].UUID == uuid {
			p.gpus[i].Health = h
			return nil
		}
	}
	return fmt.Errorf("set health of emulated GPU %q: no such GPU on this node", uuid)
}

// Close makes every later call fail.
func (p *Prober) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

// reading gives a plausible sample. The wobble is a hash of GPU and second, so equal inputs give equal samples.
func reading(g gpu.GPU, busy bool, second int64) gpu.Sample {
	wobble := wobble(g.UUID, second)
	util, memShare, powerShare, temp := 0.0, 0.01, 0.0, 31+3*wobble
	if busy {
		util, memShare, powerShare, temp = 89+10*wobble, 0.70+0.05*wobble, 0.75+0.2*wobble, 58+8*wobble
	}
	mem := int64(memShare * float64(g.MemBytes))
	s := gpu.Sample{UUID: g.UUID, UtilPct: &util, MemUsedBytes: &mem, TempCelsius: &temp}
	if prod, known := products[g.Type]; known {
		power := prod.idleWatts + powerShare*(prod.maxWatts-prod.idleWatts) + wobble
		clock := prod.maxSMMHz
		if !busy {
			clock = 345 // a common idle clock
		}
		s.PowerWatts, s.SMClockMHz = &power, &clock
	}
	return s
}

// wobble returns a number in [0,1) that depends on the GPU and the second alone.
func wobble(uuid string, second int64) float64 {
	h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(uuid), uint64(second)))
	return float64(binary.BigEndian.Uint32(h[:4])) / (1 << 32)
}
