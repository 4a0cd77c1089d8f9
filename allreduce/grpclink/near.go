package grpclink

import "net"

// nearBytes is how much a connection within one machine holds that has not been read; the kernel allows twice as much for its own records. What waits there
// should still lie in the processor's caches when it is read: with the 4 MiB to which the kernel would go, a byte costs a fourth more
// of processor time. Half as much wakes the sender too often.
const nearBytes = 512 << 10

// keepNear bounds what a connection holds if it does not leave the machine. Between machines the kernel chooses, by the round trip.
func keepNear(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	here, ok1 := tcp.LocalAddr().(*net.TCPAddr)
	there, ok2 := tcp.RemoteAddr().(*net.TCPAddr)
	if ok1 && ok2 && here.IP.Equal(there.IP) {
		_ = tcp.SetWriteBuffer(nearBytes) // else it is only slower
	}
}
