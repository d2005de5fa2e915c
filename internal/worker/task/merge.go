package task

import (
	"bytes"
	"io"
	"sync"
)

// merged joins the output of several tasks into one stream, by whole lines.
type merged struct {
	mu    sync.Mutex
	w     io.Writer
	raw   bool // one task, no label: bytes as they come
	parts []*part
	err   error
}

// longest is the longest line that is kept together.
const longest = 64 << 10

// part is one task's share of a merged stream.
type part struct {
	m     *merged
	label string
	rest  []byte // a line that has not ended
}

func (m *merged) labeled(label string) io.Writer {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &part{m: m, label: label}
	m.parts = append(m.parts, p)
	return p
}

// Write takes output. Where it goes has gone, when it fails: the task goes on,
// its log has it all.
func (p *part) Write(data []byte) (int, error) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if p.m.raw {
		p.m.put(data)
		return len(data), nil
	}
	n := len(data)
	end := bytes.LastIndexByte(data, '\n') + 1
	if end > 0 {
		p.rest = append(p.rest, data[:end]...)
		p.flush()
	}
	if p.rest = append(p.rest, data[end:]...); len(p.rest) >= longest {
		p.rest = append(p.rest, '\n')
		p.flush()
	}
	return n, nil
}

// flush writes the lines that there are. m.mu is held.
func (p *part) flush() {
	if p.label == "" {
		p.m.put(p.rest)
	} else {
		var out []byte
		for line := range bytes.Lines(p.rest) {
			out = append(append(out, p.label...), line...)
		}
		p.m.put(out)
	}
	p.rest = p.rest[:0]
}

// put writes. m.mu is held.
func (m *merged) put(data []byte) {
	if m.err == nil && len(data) > 0 {
		_, m.err = m.w.Write(data)
	}
}

// line writes a line of our own.
func (m *merged) line(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put([]byte(text + "\n"))
}

// flush writes lines that were not ended.
func (m *merged) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.parts {
		if len(p.rest) > 0 {
			p.rest = append(p.rest, '\n')
			p.flush()
		}
	}
}
