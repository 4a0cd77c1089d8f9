package grpclink

import (
	"net"
	"syscall"
	"testing"
)

// What waits on a connection within a machine is bounded.
func TestNearConnectionsHoldLittle(t *testing.T) {
	t.Parallel()
	here, _ := connected(t)
	tcp, ok := here.(*net.TCPConn)
	if !ok {
		t.Fatalf("a loopback connection is a %T", here)
	}
	held := func() (size int) {
		raw, err := tcp.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { size, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF) })
		}
		if err != nil {
			t.Fatal(err)
		}
		return size
	}
	if err := tcp.SetWriteBuffer(64 << 10); err != nil { // the kernel's choice was another
		t.Fatal(err)
	}
	before := held()
	keepNear(here)
	if after := held(); after <= before || after > 2*nearBytes {
		t.Errorf("the connection may hold %d bytes, want more than %d and at most %d", after, before, 2*nearBytes)
	}
}
