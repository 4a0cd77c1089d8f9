package scheduler

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/control"
	"github.com/gangline/gangline/scheduler/replica"
)

// Config is all that a server can be told. DefaultConfig fills in the defaults.
type Config struct {
	ID      string // this server's id, one of Servers; default "s1"
	Listen  string // host:port of the API, Raft and agents; default 127.0.0.1:7070; port 0: any, as Ready tells
	DataDir string // the server's own directory, for log and snapshots
	// Servers are all servers with the addresses at which they reach one
	// another, the same list on each. Empty: this one alone, at Listen.
	Servers []replica.Server
	// MetricsListen is host:port of the HTTP server for /metrics and /healthz; empty: none.
	MetricsListen string
	// Lease is how long a silent node is believed alive. Too small: a busy
	// network loses healthy nodes; too large: a dead node's jobs wait. Default 6 s.
	Lease time.Duration
	// Tick is how often the leader looks at the clock when nothing changes. Default 250 ms.
	Tick time.Duration
	// Control tunes the decisions.
	Control control.Config
	// Insecure allows a plain-text listener on an address that others can reach.
	Insecure bool

	ServerTLS *tls.Config // nil: plain text
	ClientTLS *tls.Config // for connections to other servers and to agents
	Version   string      // release, shown to clients
	Logger    *slog.Logger
	// Ready, if set, is called once with the addresses that are served.
	Ready func(api, metrics string)
}

// DefaultConfig returns the defaults named in Config.
func DefaultConfig() Config {
	return Config{
		ID: "s1", Listen: "127.0.0.1:7070", MetricsListen: "127.0.0.1:7071",
		Lease: 6 * time.Second, Tick: 250 * time.Millisecond, Control: control.DefaultConfig(),
	}
}

// Validate returns all problems of the configuration at once, joined.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.DataDir == "" {
		bad("data-dir: is empty: name a directory on a disk that survives a restart")
	}
	if c.Lease < 2*time.Second || c.Lease > time.Hour {
		bad("lease: %s is not in 2s..1h: agents send a heartbeat each second", c.Lease)
	}
	if c.Tick < 10*time.Millisecond || c.Tick > time.Minute {
		bad("tick: %s is not in 10ms..1m", c.Tick)
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		bad("listen: %q is not host:port: %v", c.Listen, err)
	} else if c.ServerTLS == nil && !c.Insecure && !Loopback(host) {
		bad("listen: %s can be reached from other machines and has no TLS: give --tls-cert, --tls-key and --tls-ca, or accept plain text for everyone with --insecure", c.Listen)
	}
	if len(c.Servers) > 0 {
		found := false
		for _, s := range c.Servers {
			found = found || s.ID == c.ID
		}
		if !found {
			bad("servers: do not name this server's id %q: give the same list, with all servers, to each", c.ID)
		}
	}
	return errors.Join(errs...)
}

// Loopback reports whether only this machine can reach the host.
func Loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
