package gpu

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Reading is what a Monitor last learned. Its slices are shared: read, never write.
type Reading struct {
	// At is when the poll ended; zero before the first poll.
	At time.Time
	// GPUs is the last inventory.
	GPUs []GPU
	// Samples are the readings of the last poll, never older: a poll that read nothing leaves none.
	Samples []Sample
	// Err is why the last poll has no inventory or no samples; nil if all went well.
	Err error
}

// Monitor polls a Prober and keeps the latest Reading, so that a scrape or a heartbeat never waits for a driver.
type Monitor struct {
	prober   Prober
	interval time.Duration
	log      *slog.Logger

	mu     sync.Mutex
	latest Reading
}

// NewMonitor returns a monitor that polls p every interval once Run is called. An interval much below 1 s
// costs driver time without gain (NVML itself samples every 0.2 to 1 s); a long one delays the news of a lost GPU.
func NewMonitor(p Prober, interval time.Duration, log *slog.Logger) *Monitor {
	return &Monitor{prober: p, interval: interval, log: log}
}

// Run polls at once and then every interval until ctx ends; it returns nil then. Call it once.
func (m *Monitor) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.interval)
	defer ticker.Stop()
	for {
		m.Poll(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Poll reads the prober now and returns what it learned. If the inventory cannot be read, the last one is kept
// with every GPU unhealthy, since nothing vouches for it.
func (m *Monitor) Poll(ctx context.Context) Reading {
	gpus, err := m.prober.GPUs(ctx)
	samples, sampleErr := []Sample(nil), error(nil)
	if err == nil {
		samples, sampleErr = m.prober.Samples(ctx)
	}
	next := Reading{At: time.Now(), GPUs: gpus, Samples: samples, Err: errors.Join(err, sampleErr)}
	if sampleErr != nil {
		next.Samples = nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		return m.latest // the agent is stopping: a call cut short says nothing about the GPUs
	}
	if err != nil {
		next.GPUs = unhealthy(m.latest.GPUs, err.Error())
	}
	if next.Err != nil && (m.latest.Err == nil || m.latest.Err.Error() != next.Err.Error()) {
		m.log.Warn("GPUs cannot be read", "err", next.Err)
	} else if next.Err == nil && m.latest.Err != nil {
		m.log.Info("GPUs can be read again", "gpus", len(next.GPUs))
	}
	m.latest = next
	return next
}

// Latest returns the last reading without waiting for a driver; safe for concurrent use.
func (m *Monitor) Latest() Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.latest
}

// unhealthy copies the inventory with one verdict on every GPU.
func unhealthy(gpus []GPU, reason string) []GPU {
	out := append([]GPU(nil), gpus...)
	for i := range out {
		out[i].Health = Health{Reason: reason}
	}
	return out
}
