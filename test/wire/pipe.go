package wire

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"
)

// pipe carries packets one way. One goroutine reads and decides about each
// packet when it would arrive, another writes what is due.
type pipe struct {
	link     *Link
	way      Direction
	from, to *device

	// Of the reading goroutine.
	chance *rand.Rand
	seed   uint64
	bad    bool      // in a burst of loss
	free   time.Time // when the link has sent all that waits
	last   time.Time // arrival of the last packet that kept its order

	mu      sync.Mutex
	transit transit
	number  uint64
	counted Stats
	stopped bool
	wake    chan struct{} // something earlier than all before is in transit, or it is over
}

// packet is on its way.
type packet struct {
	due    time.Time
	number uint64
	data   []byte
	buffer *[]byte // of a pool, to be given back
}

func newPipe(l *Link, way Direction, from, to *device) *pipe {
	return &pipe{link: l, way: way, from: from, to: to, wake: make(chan struct{}, 1)}
}

func (p *pipe) stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counted
}

func (p *pipe) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.rouse()
}

// rouse wakes the writer. The lock is held.
func (p *pipe) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

const smallFrame = 2 << 10

var (
	largeFrames = sync.Pool{New: func() any { b := make([]byte, largestFrame); return &b }}
	smallFrames = sync.Pool{New: func() any { b := make([]byte, smallFrame); return &b }}
)

// release gives the packet's memory back.
func (p *packet) release() {
	if cap(*p.buffer) == smallFrame {
		smallFrames.Put(p.buffer)
		return
	}
	largeFrames.Put(p.buffer)
}

// read takes what the kernel sends, until the device is closed.
func (p *pipe) read() {
	for {
		buffer := largeFrames.Get().(*[]byte) //nolint:errcheck,forcetypeassert // nothing else is in there
		n, err := p.from.Read(*buffer)
		if err != nil {
			return
		}
		if n < headerSize+1 {
			continue
		}
		one := packet{data: (*buffer)[:n], buffer: buffer}
		if n <= smallFrame {
			one.buffer = smallFrames.Get().(*[]byte) //nolint:errcheck,forcetypeassert // nothing else is in there
			one.data = (*one.buffer)[:copy(*one.buffer, one.data)]
			largeFrames.Put(buffer)
		}
		p.send(one)
	}
}

// wireSize is what a packet weighs on a real link, where each part of a large
// one has headers of its own.
func wireSize(frame []byte) int {
	size := len(frame) - headerSize
	headers, part := int(binary.NativeEndian.Uint16(frame[2:])), int(binary.NativeEndian.Uint16(frame[4:]))
	if kind := frame[1]; kind != 0 && part > 0 && headers > 0 && size > headers {
		size += headers * ((size-headers+part-1)/part - 1)
	}
	return size
}

// send decides about a packet.
func (p *pipe) send(one packet) {
	s := p.link.settings.Load()
	now := time.Now()
	if p.chance == nil || p.seed != s.Seed {
		p.seed = s.Seed
		p.chance = rand.New(rand.NewPCG(s.Seed, uint64(p.way)))
	}
	// The NAT sees packets of both sides, also those that are lost behind it.
	known := p.link.nat.pass(one.data[headerSize:], s.ForgetIdle, now)
	if lost := p.lose(s); lost || !known || p.link.cut[p.way].Load() {
		p.count(func(c *Stats) { c.Sent, c.Lost = c.Sent+1, c.Lost+1 })
		one.release()
		return
	}
	if p.free.Before(now) {
		p.free = now
	}
	if s.Rate > 0 {
		size := int64(wireSize(one.data))
		waiting := int64(p.free.Sub(now).Seconds() * float64(s.Rate) / 8)
		if waiting > 0 && waiting+size > s.queue() {
			p.count(func(c *Stats) { c.Sent, c.Dropped = c.Sent+1, c.Dropped+1 })
			one.release()
			return
		}
		p.free = p.free.Add(time.Duration(float64(size) * 8 / float64(s.Rate) * float64(time.Second)))
	}
	one.due = p.free.Add(s.RTT / 2)
	if s.Jitter > 0 {
		one.due = one.due.Add(time.Duration(p.chance.Int64N(int64(s.Jitter) + 1)))
	}
	if s.Reorder > 0 && p.chance.Float64() < s.Reorder {
		by := s.ReorderBy
		if by == 0 {
			by = 10 * time.Millisecond
		}
		one.due = one.due.Add(by)
	} else {
		if one.due.Before(p.last) {
			one.due = p.last
		}
		p.last = one.due
	}
	if s.Duplicate > 0 && p.chance.Float64() < s.Duplicate {
		twin := packet{due: one.due, buffer: largeFrames.Get().(*[]byte)} //nolint:errcheck,forcetypeassert // nothing else is in there
		twin.data = (*twin.buffer)[:copy(*twin.buffer, one.data)]
		p.push(twin, 0)
	}
	p.push(one, 1)
}

// lose rolls the dice for a packet.
func (p *pipe) lose(s *Settings) bool {
	if s.Loss <= 0 {
		p.bad = false
		return false
	}
	if s.LossBurst <= 1 || s.Loss >= 1 {
		return p.chance.Float64() < s.Loss
	}
	// Two states, with as many steps between them as give the share and the length.
	if p.bad {
		p.bad = p.chance.Float64() >= 1/s.LossBurst
	} else {
		p.bad = p.chance.Float64() < s.Loss/((1-s.Loss)*s.LossBurst)
	}
	return p.bad
}

func (p *pipe) count(how func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	how(&p.counted)
}

func (p *pipe) push(one packet, sent int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counted.Sent += sent
	p.counted.Underway++
	one.number = p.number
	p.number++
	p.transit.push(one)
	if p.transit[0].number == one.number {
		p.rouse()
	}
}

// write gives the kernel what arrives, until it is stopped.
func (p *pipe) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var due []packet
	for {
		wait := time.Hour
		p.mu.Lock()
		if p.stopped {
			p.mu.Unlock()
			return
		}
		now := time.Now()
		for due = due[:0]; len(p.transit) > 0 && len(due) < 64; {
			if wait = p.transit[0].due.Sub(now); wait > 0 {
				break
			}
			due = append(due, p.transit.pop())
		}
		p.mu.Unlock()
		if len(due) > 0 {
			p.deliver(due)
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-p.wake:
		}
	}
}

func (p *pipe) deliver(due []packet) {
	var sum Stats
	for i := range due {
		if p.link.cut[p.way].Load() {
			sum.Lost++
		} else if _, err := p.to.Write(due[i].data); err != nil {
			sum.Dropped++ // the kernel has no room, or the device is gone
		} else {
			sum.Packets++
			sum.Bytes += int64(len(due[i].data) - headerSize)
		}
		due[i].release()
	}
	p.count(func(c *Stats) {
		c.Underway -= int64(len(due))
		c.Packets += sum.Packets
		c.Bytes += sum.Bytes
		c.Lost += sum.Lost
		c.Dropped += sum.Dropped
	})
}

// transit is a heap of packets, the next to arrive on top.
type transit []packet

func (t transit) before(i, j int) bool {
	if t[i].due.Equal(t[j].due) {
		return t[i].number < t[j].number
	}
	return t[i].due.Before(t[j].due)
}

func (t *transit) push(one packet) {
	h := append(*t, one)
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.before(i, up) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	*t = h
}

func (t *transit) pop() packet {
	h := *t
	top, n := h[0], len(h)-1
	h[0], h[n] = h[n], packet{}
	h = h[:n]
	for i := 0; ; {
		least := i
		for _, down := range []int{2*i + 1, 2*i + 2} {
			if down < n && h.before(down, least) {
				least = down
			}
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	*t = h
	return top
}
