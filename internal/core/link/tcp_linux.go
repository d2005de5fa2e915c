package link

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tune makes the kernel notice a peer that is gone, and keeps what waits for
// sending short, so that a sign of life is not sent minutes after it was written.
func tune(conn net.Conn, silence time.Duration) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	// Without these options the link works too, only less well.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 256<<10)
	})
}
