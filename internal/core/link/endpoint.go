package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"
)

// endpoint is a parsed [skyport.Node.Endpoint].
type endpoint struct {
	socket string // of unix

	user, host, port, dir string // of ssh
}

// parseEndpoint understands unix:///path and ssh://user@host:port/dir.
func parseEndpoint(text string) (endpoint, error) {
	u, err := url.Parse(text)
	if err != nil {
		return endpoint{}, fmt.Errorf("endpoint %q: %w", text, errors.Unwrap(err))
	}
	bare := u.RawQuery == "" && u.Fragment == ""
	switch {
	case u.Scheme == "unix" && u.Path != "" && u.Host == "" && u.User == nil && bare:
		return endpoint{socket: u.Path}, nil
	case u.Scheme == "ssh" && bare:
		e := endpoint{user: u.User.Username(), host: u.Hostname(), port: u.Port(), dir: path.Clean(u.Path)}
		if e.port == "" {
			e.port = "22"
		}
		if _, secret := u.User.Password(); !secret && e.user != "" && e.host != "" && e.dir != "." && e.dir != "/" &&
			!strings.ContainsAny(e.user+e.dir, "\n\r\x00") {
			return e, nil
		}
	}
	return endpoint{}, fmt.Errorf("endpoint %q is neither unix:///path nor ssh://user@host:port/dir", text)
}

// local is the route to a worker on this machine.
type local struct{ socket string }

func (u local) ready(context.Context) error { return nil }
func (u local) answered()                   {}
func (u local) close()                      {}

func (u local) bulk(ctx context.Context) (net.Conn, error) { return u.dial(ctx) }

func (u local) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", u.socket) //nolint:wrapcheck // says what and on what
}

// newRoute returns the way to the node with index i; those before it have theirs.
func (l *Link) newRoute(i int) (route, error) {
	e, err := parseEndpoint(l.opts.Nodes[i].Endpoint)
	if err != nil {
		return nil, err
	}
	if e.socket != "" {
		return local{e.socket}, nil
	}
	return l.newMachine(i, e)
}
