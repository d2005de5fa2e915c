package link

import (
	"context"
	"errors"
	"net"
)

// Binaries lets a test say which workers are installed.
type Binaries = binaries

// WithBinaries returns options by which other workers are installed.
func WithBinaries(o Options, b Binaries) Options {
	o.binaries = b
	return o
}

// DialLine opens a connection to a unix socket on the main node, as one for bulk
// data to the worker is opened.
func (l *Link) DialLine(ctx context.Context, path string) (net.Conn, error) {
	m, ok := l.nodes[0].route.(*machine)
	if !ok {
		return nil, errors.New("not reached by SSH")
	}
	return m.overLine(ctx, func(w *wire) (net.Conn, error) { return w.dialUnix(ctx, path) })
}

// DialControl is DialLine beside calls.
func (l *Link) DialControl(ctx context.Context, path string) (net.Conn, error) {
	m, ok := l.nodes[0].route.(*machine)
	if !ok {
		return nil, errors.New("not reached by SSH")
	}
	return m.current().dialUnix(ctx, path)
}
