package grpclink

import (
	"net"
	"syscall"
	"testing"
)

// What waits on a connection within a machine is bounded by us, not by the kernel.
func TestNearConnectionsHoldLittle(t *testing.T) {
	t.Parallel()
	tcp, _ := connected(t, "tcp", "127.0.0.1:0")
	unix, _ := connected(t, "unix", "@gangline-test-"+newNonce())
	for _, conn := range []net.Conn{tcp, unix} {
		c, ok := conn.(interface {
			syscall.Conn
			SetWriteBuffer(bytes int) error
		})
		if !ok {
			t.Fatalf("a connection is a %T", conn)
		}
		held := func() (size int) {
			raw, err := c.SyscallConn()
			if err == nil {
				err = raw.Control(func(fd uintptr) { size, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF) })
			}
			if err != nil {
				t.Fatal(err)
			}
			return size
		}
		if err := c.SetWriteBuffer(64 << 10); err != nil { // the kernel's choice was another
			t.Fatal(err)
		}
		before := held()
		keepNear(conn)
		if after := held(); after <= before || after > 2*nearBytes {
			t.Errorf("%T may hold %d bytes, want more than %d and at most %d", conn, after, before, 2*nearBytes)
		}
	}
}
