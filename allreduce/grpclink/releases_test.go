package grpclink_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// releases are who dials and who serves by grpc-go, as all did in earlier releases.
var releases = []struct {
	name   string
	before func(rank int) (dials, serves bool)
}{
	{"all as now", func(int) (bool, bool) { return false, false }},
	{"grpc-go dials", func(int) (bool, bool) { return true, false }},
	{"grpc-go serves", func(int) (bool, bool) { return false, true }},
	{"every second rank of an earlier release", func(rank int) (bool, bool) { return rank%2 == 0, rank%2 == 0 }},
}

// A ring may be of ranks of several releases, as the first did in which streams were all grpc-go's. Vectors short and long go by wires and by the ring.
func TestReleasesMix(t *testing.T) {
	t.Parallel()
	for _, release := range releases {
		for _, path := range []grpclink.Path{grpclink.PathGRPC, grpclink.PathTCP} {
			t.Run(fmt.Sprintf("%s/%s", release.name, path), func(t *testing.T) {
				t.Parallel()
				groups := joinAll(t, 4, func(c *grpclink.Config) {
					c.Path, c.DetectTimeout = path, 10*time.Second
					beAsBefore(c, release.before)
				})
				defer closeAll(groups)
				sumAll(t, groups, 10, 5_000, 700_001)
			})
		}
	}
}

func beAsBefore(c *grpclink.Config, before func(int) (bool, bool)) {
	dials, serves := before(c.Rank)
	if dials {
		c.DialAsBefore()
	}
	if serves {
		c.ServeAsBefore()
	}
}

// sumAll sums vectors of each length, twice, on all ranks.
func sumAll(t *testing.T, groups []*allreduce.Group, lengths ...int) {
	t.Helper()
	for _, length := range append(lengths, lengths...) {
		var all errgroup.Group
		for r, g := range groups {
			all.Go(func() error { return sumOnce(t.Context(), g, r, len(groups), length) })
		}
		if err := all.Wait(); err != nil {
			t.Fatalf("%d elements: %v", length, err)
		}
	}
}

// What a proxy in between makes of a stream: nginx knows nothing of rings, takes frames of 16 KiB, has windows of its own and gives each stream a connection of its own.
func TestThroughProxy(t *testing.T) {
	t.Parallel()
	for _, release := range releases {
		t.Run(release.name, func(t *testing.T) {
			t.Parallel()
			const n = 3
			ls, behind := listeners(t, n)
			peers := proxied(t, behind)
			groups := make([]*allreduce.Group, n)
			var all errgroup.Group
			for r := range groups {
				all.Go(func() error {
					cfg := config(r, peers, ls[r])
					cfg.Path, cfg.DetectTimeout = grpclink.PathGRPC, 10*time.Second
					beAsBefore(&cfg, release.before)
					g, err := grpclink.Join(t.Context(), cfg)
					groups[r] = g
					return err
				})
			}
			if err := all.Wait(); err != nil {
				t.Fatalf("Join: %v", err)
			}
			defer closeAll(groups)
			sumAll(t, groups, 10, 5_000, 700_001)
			refusedThroughProxy(t, peers)
		})
	}
}

// refusedThroughProxy has a rank of an older epoch dial, which must learn why it is refused in words, through the proxy too.
func refusedThroughProxy(t *testing.T, peers []string) {
	t.Helper()
	own, mine := listeners(t, 1)
	peers = append([]string{mine[0]}, peers[1:]...)
	cfg := config(0, peers, own[0])
	cfg.Epoch--
	cfg.Path = grpclink.PathGRPC
	_, err := grpclink.Join(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("epoch %d", epoch)) {
		t.Errorf("a rank of epoch %d joins through the proxy: %v, want to be told of epoch %d", epoch-1, err, epoch)
	}
}

// proxied puts nginx before all addresses, and returns those at which it listens.
func proxied(t *testing.T, behind []string) []string {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("nginx is not installed: apt-get install nginx")
		}
	}
	ls, fronts := listeners(t, len(behind))
	dir := t.TempDir()
	var servers strings.Builder
	inherited := make([]*os.File, len(ls))
	names := ""
	for i, l := range ls {
		tcp, _ := l.(*net.TCPListener)
		if inherited[i], err = tcp.File(); err != nil {
			t.Fatal(err)
		}
		_ = l.Close() // nginx has it
		names += fmt.Sprintf("%d;", 3+i)
		fmt.Fprintf(&servers, "server { listen %s http2; client_max_body_size 0; location / { grpc_pass grpc://%s; } }\n", fronts[i], behind[i])
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log stderr;
events { worker_connections 64; }
http { access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
%[2]s}
`, dir, servers.String())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, nginx, "-e", "stderr", "-p", dir, "-c", conf)
	cmd.Env = append(os.Environ(), "NGINX="+names) // how it hands sockets to its successor
	cmd.ExtraFiles = inherited
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // its worker must end too
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range inherited {
		_ = f.Close() // nginx has it
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("nginx said:\n%s", said.String())
		}
	})
	return fronts
}
