package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/session"
)

// Command is a command to run on a node of a job or a partition.
type Command struct {
	Argv []string          `json:"argv,omitempty"` // empty: a shell
	Env  map[string]string `json:"env,omitempty"`  // beside that of the job
	Dir  string            `json:"dir,omitempty"`  // empty: the job's work directory, relative: below it
	// TTY gives it a terminal of Rows and Cols: standard output and error are one.
	TTY  bool `json:"tty,omitempty"`
	Rows int  `json:"rows,omitempty"`
	Cols int  `json:"cols,omitempty"`
}

// Streams are what a command is connected with; all may be nil.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan Size // sizes that the terminal gets
	Signals        <-chan syscall.Signal
}

// Size is the size of a terminal in characters.
type Size = session.Size

// Exit tells how a command ended: its code, 128 and the signal's number when a
// signal ended it.
type Exit = session.Exit

// Exec runs a command beside the script of a job: in its container if it has
// one, in its work directory, on the node of that name or, with "", where the
// script runs. It returns when the command has ended; a command that could not
// be started is an error. When ctx ends, the command is ended.
func (c *Client) Exec(ctx context.Context, id skyport.JobID, node string, command Command, streams Streams) (Exit, error) {
	return c.command(ctx, jobPath(id, "commands"), node, command, streams)
}

// ExecOn runs a command on a node of a partition itself; without a command it
// is a login shell. The partition must have no jobs of other users.
func (c *Client) ExecOn(ctx context.Context, id skyport.PartitionID, node string, command Command, streams Streams) (Exit, error) {
	return c.command(ctx, "/v1/partitions/"+url.PathEscape(string(id))+"/commands", node, command, streams)
}

func (c *Client) command(ctx context.Context, path, node string, command Command, streams Streams) (Exit, error) {
	var conn net.Conn
	err := c.persist(ctx, c.patience, func() (err error) {
		conn, err = c.raw(ctx, path, node)
		return err
	})
	if err != nil {
		return Exit{}, err
	}
	exit, err := session.Call(ctx, conn, command, session.Caller(streams))
	if err == nil {
		err = exit.Err()
	}
	return exit, err
}

// raw asks for a raw connection. Nothing has happened yet when it is there.
func (c *Client) raw(ctx context.Context, path, node string) (net.Conn, error) {
	query := url.Values{}
	if node != "" {
		query.Set("node", node)
	}
	header := http.Header{"Connection": {"Upgrade"}, "Upgrade": {forward.Protocol}}
	response, err := c.send(ctx, call{method: http.MethodPost, path: path, query: query, header: header}, nil)
	if err != nil {
		return nil, err
	}
	body, ok := response.Body.(io.ReadWriteCloser)
	if response.StatusCode != http.StatusSwitchingProtocols || !ok {
		defer drain(response.Body)
		return nil, skyport.Errorf(skyport.CodeUnsupported, "core at %s does not give raw connections: it answered %s", c.base, response.Status).
			WithHint("is there a proxy before it that does not pass Upgrade on?")
	}
	return rawConn{body}, nil
}

// rawConn is what an upgraded request has become. It has no deadlines.
type rawConn struct{ io.ReadWriteCloser }

// LocalAddr is not known.
func (rawConn) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr is not known.
func (rawConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline is not supported.
func (rawConn) SetDeadline(time.Time) error { return errors.ErrUnsupported }

// SetReadDeadline is not supported.
func (rawConn) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

// SetWriteDeadline is not supported.
func (rawConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// Usage asks the nodes of a job what they use now.
func (c *Client) Usage(ctx context.Context, id skyport.JobID) (skyport.JobUsage, error) {
	var usage skyport.JobUsage
	_, err := c.do(ctx, call{method: http.MethodGet, path: jobPath(id, "usage"), out: &usage})
	return usage, err
}
