package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Server is one member of the cluster.
type Server struct {
	ID      string // 1..64 bytes, never reused for another disk
	Address string // host:port for the API and Raft alike, as the others reach it
}

// Config says which server this is and how it keeps its data. Only ID, Servers
// and Dir must be set.
type Config struct {
	ID      string   // this server; one of Servers
	Servers []Server // all members, the same list on every one: 1, 3 or 5
	Dir     string   // directory for the log and snapshots; this server's alone

	// Heartbeat, Election and LeaderLease are Raft's timeouts; 0 means 300, 300
	// and 200 ms. Below 100 ms a busy machine loses its leader for no reason;
	// far above, a dead leader is noticed late.
	Heartbeat, Election, LeaderLease time.Duration

	// SnapshotEntries is how many entries are applied between snapshots, and
	// TrailingLogs how many are kept behind one for followers that lag; 0 means
	// 65,536 and 131,072. With too few trailing ones a follower that was away
	// for seconds needs the whole state; with too many the disk fills.
	SnapshotEntries, TrailingLogs uint64

	// SnapshotInterval is how often the entries are counted; 0 means 30 s.
	SnapshotInterval time.Duration

	// ProposeTimeout ends the wait for a commit; 0 means 10 s. The caller's
	// context may end it earlier.
	ProposeTimeout time.Duration

	// DiskStall is how long one write to the log may take before a leader gives
	// up leading; 0 means 2 s. A server whose disk hangs altogether stops.
	DiskStall time.Duration

	// Events is how many events are kept for watchers; 0 means 65,536.
	Events int

	Release    string                // named in errors about newer logs; "" means "this release"
	Logger     *slog.Logger          // nil: slog.Default
	Registerer prometheus.Registerer // nil: no metrics
	Clock      func() time.Time      // stamps entries; nil: time.Now

	segmentBytes int // of the log's files; 0: the library's 64 MiB
}

// An entry holds the largest command that the state allows, or this does not compile.
const _ = uint(maxEntryBytes - commandOverhead - entryOverhead - cluster.MaxCommandBytes)

// Bounds of the package that are not settings.
const (
	maxServerID       = 64
	maxServers        = 15
	maxEntryBytes     = 1 << 20          // one log entry: what a slow link carries within a heartbeat or two
	maxEntryCommands  = 4096             // bounds one Apply step
	maxEntriesFlight  = 2                // one at the leader's disk, one at the followers'; more makes batches smaller and tails longer (DESIGN.md)
	proposalQueue     = 512              // callers' proposals waiting for an entry
	logCacheEntries   = 512              // recent entries kept in memory for followers
	snapshotsKept     = 2                // the older one is for people, never restored by itself
	enqueueTimeout    = 5 * time.Second  // until Raft's loop takes an entry
	takeoverTimeout   = 10 * time.Second // one attempt of a new leader to catch up
	takeoverRetry     = 50 * time.Millisecond
	transferTimeout   = time.Second
	drainTimeout      = 3 * time.Second // until requests to Raft are answered when closing
	shutdownTimeout   = 5 * time.Second // until Raft has stopped; longer means a hung disk
	transportTimeout  = 3 * time.Second // one Raft call; snapshots get more
	transportPool     = 3               // idle connections to each server
	maxEventsPerCall  = 1024
	defaultEvents     = 65536
	entryOverhead     = 64 // bytes of an entry beside its commands
	commandOverhead   = 5  // bytes of framing of one command
	transportInFlight = 1  // no pipelining, see DESIGN.md
)

func (c Config) withDefaults() Config {
	c.Heartbeat = orDefault(c.Heartbeat, 300*time.Millisecond)
	c.Election = orDefault(c.Election, 300*time.Millisecond)
	c.LeaderLease = orDefault(c.LeaderLease, 200*time.Millisecond)
	c.SnapshotEntries = orDefault(c.SnapshotEntries, 65536)
	c.TrailingLogs = orDefault(c.TrailingLogs, 131072)
	c.SnapshotInterval = orDefault(c.SnapshotInterval, 30*time.Second)
	c.ProposeTimeout = orDefault(c.ProposeTimeout, 10*time.Second)
	c.DiskStall = orDefault(c.DiskStall, 2*time.Second)
	c.Events = orDefault(c.Events, defaultEvents)
	c.Release = orDefault(c.Release, "this release")
	c.Logger = orDefault(c.Logger, slog.Default())
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// validate returns every problem of the config at once.
func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Servers) == 0 || len(c.Servers) > maxServers {
		bad("servers: %d given, want 1 to %d", len(c.Servers), maxServers)
	}
	ids, addresses := map[string]bool{}, map[string]bool{}
	for _, s := range c.Servers {
		if s.ID == "" || len(s.ID) > maxServerID {
			bad("servers: id %q must be 1 to %d bytes", s.ID, maxServerID)
		}
		if ids[s.ID] {
			bad("servers: id %q is given twice", s.ID)
		}
		if s.Address == "" {
			bad("servers: server %q has no address", s.ID)
		}
		if addresses[s.Address] {
			bad("servers: address %q is given twice", s.Address)
		}
		ids[s.ID], addresses[s.Address] = true, true
	}
	if !ids[c.ID] {
		bad("server id %q is not in the list of servers %v: correct the id, or add it with its address", c.ID, c.serverIDs())
	}
	if c.Events < 0 {
		bad("events: %d is negative", c.Events)
	}
	return errors.Join(errs...)
}

func (c *Config) serverIDs() []string {
	ids := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		ids[i] = s.ID
	}
	return ids
}

// address returns a server's address by its id, or "".
func (c *Config) address(id string) string {
	for _, s := range c.Servers {
		if s.ID == id {
			return s.Address
		}
	}
	return ""
}

// serverAt returns a server's id by its address, or "".
func (c *Config) serverAt(address string) string {
	for _, s := range c.Servers {
		if s.Address == address {
			return s.ID
		}
	}
	return ""
}

// textAddr is an address that is shown to others as it was configured.
type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }

var _ net.Addr = textAddr("")
