package session

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/gangline/gangline/checkpoint"
)

// Checkpoint is one complete checkpoint that is read. Its methods may be called concurrently; reads are made one after the other.
type Checkpoint struct {
	of       *Checkpoints
	manifest checkpoint.Manifest
	skipped  []checkpoint.Skipped

	mu     sync.Mutex
	reader *checkpoint.Reader // nil after Close
}

// LatestCheckpoint finds the newest checkpoint of which every byte verifies. One rank asks, and tells the others, so that all agree even while a disk
// fails. The code of the error is None if there is none at all, and Damaged if there are some and none is good.
func (s *Session) LatestCheckpoint(checkpoints int64) (handle int64, err error) {
	c, err := s.Checkpoints(checkpoints)
	if err != nil {
		return 0, err
	}
	m, skipped, err := c.store.Latest(context.Background())
	if err != nil {
		return 0, fmt.Errorf("find the checkpoint to resume from in %s: %w", c.dir, err)
	}
	return s.opened.put(&Checkpoint{of: c, manifest: m, skipped: skipped, reader: c.store.NewReader(m)}), nil
}

// OpenCheckpoint opens the checkpoint that another rank has found. What is read of it is verified then.
func (s *Session) OpenCheckpoint(checkpoints int64, ref checkpoint.Ref) (handle int64, err error) {
	c, err := s.Checkpoints(checkpoints)
	if err != nil {
		return 0, err
	}
	m, err := c.store.Load(context.Background(), ref)
	if err != nil {
		return 0, fmt.Errorf("load checkpoint %s from %s: %w", ref, c.dir, err)
	}
	return s.opened.put(&Checkpoint{of: c, manifest: m, reader: c.store.NewReader(m)}), nil
}

// Checkpoint finds an open checkpoint by its handle.
func (s *Session) Checkpoint(handle int64) (*Checkpoint, error) {
	return s.opened.get(handle, "checkpoint")
}

// CloseCheckpoint closes its files.
func (s *Session) CloseCheckpoint(handle int64) error {
	c, err := s.opened.take(handle, "checkpoint")
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reader := c.reader
	c.reader = nil
	return reader.Close()
}

// tensorText is a tensor as Describe tells of it.
type tensorText struct {
	Type  string  `json:"type"`
	Shape []int64 `json:"shape"`
}

// Describe gives what there is to know beside the tensors' elements, as JSON.
func (c *Checkpoint) Describe() ([]byte, error) {
	m := &c.manifest
	tensors := make(map[string]tensorText)
	for _, name := range m.TensorNames() {
		typ, shape, _ := m.Tensor(name)
		if shape == nil {
			shape = []int64{} // of a scalar
		}
		tensors[name] = tensorText{string(typ), shape}
	}
	damaged := []string{}
	for _, s := range c.skipped {
		damaged = append(damaged, fmt.Sprintf("%s: %v", s.Ref, s.Err))
	}
	return json.Marshal(map[string]any{
		"epoch": m.Epoch, "step": m.Step, "world_size": m.WorldSize, "path": filepath.Join(c.of.dir, m.Dir), "saved_unix_ms": m.SavedMS,
		"meta": orEmpty(m.Meta), "metrics": orEmpty(m.Metrics), "tensors": tensors, "damaged": damaged,
	})
}

func orEmpty[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// Read fills dst with the box of shape at offset of a tensor, every chunk verified. Both nil mean all of it.
func (c *Checkpoint) Read(name string, offset, shape []int64, dst []byte) error {
	if offset == nil {
		_, whole, ok := c.manifest.Tensor(name)
		if !ok {
			return fmt.Errorf("tensor %q in checkpoint %s: %w", name, c.manifest.Ref(), checkpoint.ErrNoTensor)
		}
		offset, shape = make([]int64, len(whole)), whole
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reader == nil {
		return fmt.Errorf("checkpoint %s: %w", c.manifest.Ref(), errHandle)
	}
	return c.reader.ReadRaw(context.Background(), name, offset, shape, dst)
}
