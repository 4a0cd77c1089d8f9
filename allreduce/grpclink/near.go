package grpclink

import "net"

// nearBytes is how much a connection within one machine holds that has not been read; the kernel allows twice as much for its own records. What waits there
// should still lie in the processor's caches when it is read: with the 4 MiB to which the kernel would go for TCP, a byte costs a fourth more
// of processor time. Half as much wakes the sender too often, as do the 208 KiB that a Unix socket has by default.
const nearBytes = 512 << 10

// keepNear sets what a connection holds if it does not leave the machine. Between machines the kernel chooses, by the round trip.
func keepNear(conn net.Conn) {
	switch c := conn.(type) {
	case *net.UnixConn:
		_ = c.SetWriteBuffer(nearBytes) // else it is only slower
	case *net.TCPConn:
		here, ok1 := c.LocalAddr().(*net.TCPAddr)
		there, ok2 := c.RemoteAddr().(*net.TCPAddr)
		if ok1 && ok2 && here.IP.Equal(there.IP) {
			_ = c.SetWriteBuffer(nearBytes) // as above
		}
	}
}
