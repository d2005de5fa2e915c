package wire

import (
	"encoding/binary"
	"sync"
	"time"
)

// nat knows the TCP connections that cross the link.
type nat struct {
	mu        sync.Mutex
	flows     map[flow]time.Time // when something moved last
	since     time.Time          // connections that are older are known from their first packet after it
	strangers bool               // no: they are strangers
	swept     time.Time
}

// flow is a connection by its ends, the lesser first: both ways are one flow.
type flow struct {
	a, b         [4]byte
	aPort, bPort uint16
}

const (
	flagSYN = 0x02
	flagACK = 0x10
)

// flowOf finds the flow of a packet of TCP over IPv4, and its flags.
func flowOf(packet []byte) (f flow, flags byte, ok bool) {
	if len(packet) < 40 || packet[0]>>4 != 4 || packet[9] != 6 {
		return flow{}, 0, false
	}
	header := int(packet[0]&15) * 4
	if len(packet) < header+14 {
		return flow{}, 0, false
	}
	segment := packet[header:]
	f = flow{
		[4]byte(packet[12:]), [4]byte(packet[16:]),
		binary.BigEndian.Uint16(segment), binary.BigEndian.Uint16(segment[2:]),
	}
	a, b := binary.BigEndian.Uint32(f.a[:]), binary.BigEndian.Uint32(f.b[:])
	if a > b || a == b && f.aPort > f.bPort {
		f.a, f.b, f.aPort, f.bPort = f.b, f.a, f.bPort, f.aPort
	}
	return f, segment[13], true
}

// begin starts to forget: what there is now is known.
func (n *nat) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.since, n.strangers = time.Now(), false
	clear(n.flows)
}

func (n *nat) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.strangers = true
	clear(n.flows)
}

// pass notes a packet and says whether its connection is known.
func (n *nat) pass(packet []byte, idle time.Duration, now time.Time) bool {
	f, flags, ok := flowOf(packet)
	if !ok {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if idle == 0 && !n.strangers {
		return true
	}
	seen, known := n.flows[f]
	switch {
	case flags&(flagSYN|flagACK) == flagSYN:
	case !known && !n.strangers && now.Sub(n.since) < idle:
	case !known:
		return false
	case idle > 0 && now.Sub(seen) > idle:
		delete(n.flows, f)
		return false
	}
	n.flows[f] = now
	if idle > 0 && now.Sub(n.swept) > idle {
		n.swept = now
		for f, seen := range n.flows {
			if now.Sub(seen) > idle {
				delete(n.flows, f)
			}
		}
	}
	return true
}
