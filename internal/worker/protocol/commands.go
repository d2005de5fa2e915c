package protocol

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/forward"
)

// Command opens a connection for one command on the node; what to run says its
// first frame, a [Command]: see package session, whose Call does the rest.
func (c *Client) Command(ctx context.Context) (net.Conn, error) {
	return c.CommandIn(ctx, "")
}

// CommandIn is Command for commands of one run only, whatever their frame says;
// empty: the frame's.
func (c *Client) CommandIn(ctx context.Context, run string) (net.Conn, error) {
	path := "/v1/commands"
	if run != "" {
		path += "?run=" + url.QueryEscape(run)
	}
	conn, err := forward.DialUpgrade(ctx, c.dial, path, nil)
	if err != nil {
		return nil, fmt.Errorf("run a command on the node: %w", err)
	}
	return conn, nil
}

// NodeUsage asks what the node uses as a whole.
func (c *Client) NodeUsage(ctx context.Context) (NodeUsage, error) {
	var usage NodeUsage
	return usage, c.call(ctx, http.MethodGet, base+"/usage", nil, &usage)
}

// Lease says until when a node lives.
type Lease struct {
	Until time.Time `json:"until"`
}

// SetLease says until when the node lives: past it the node ends by itself, where
// it was made to.
func (c *Client) SetLease(ctx context.Context, until time.Time) error {
	return c.call(ctx, http.MethodPut, base+"/lease", Lease{Until: until.UTC()}, nil)
}

// FilesURL is where files of a run's work directory are moved to and from while
// the run is there, with [FilesPut] or [FilesGet] behind it.
func (c *Client) FilesURL(run string) string { return runURL(run) + "/files" }

// FilesPut is what follows FilesURL for transfer.Push into a directory below the
// work directory; "." is that itself. Directories on the way are made.
func FilesPut(dir string) string { return "/put/" + filesSegment(dir) }

// FilesGet is what follows FilesURL for transfer.Pull of a file or a directory
// below the work directory: the tree has it under its base name; for "." it has
// all that is in the work directory.
func FilesGet(path string) string { return "/get/" + filesSegment(path) }

// filesSegment makes one segment of a path: a transfer appends its own ones.
func filesSegment(path string) string { return base64.RawURLEncoding.EncodeToString([]byte(path)) }

// FilesPath reads what FilesPut and FilesGet wrote.
func FilesPath(segment string) (string, error) {
	path, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil || len(path) == 0 {
		return "", skyport.Errorf(skyport.CodeInvalid, "%q is not the base64 (URL, unpadded) of a path", skyport.Abbreviate(segment, 80))
	}
	return string(path), nil
}
