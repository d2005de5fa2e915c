package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
)

// CopyTo copies a file or directory of this machine into a directory below the
// work directory of a job, "." for that itself, while the job is on its nodes.
// It lands under the name, "" for its own. Directories on the way are made; a
// directory that is there is merged, files of the same names are replaced, each
// as a whole. Progress may be nil.
func (c *Client) CopyTo(ctx context.Context, id skyport.JobID, from, dir, name string, progress func(skyport.Transfer)) (skyport.Transfer, error) {
	tree, err := transfer.ScanInputs(ctx, []string{from})
	if err != nil {
		return skyport.Transfer{}, err
	}
	source, err := withName(tree, name)
	if err != nil {
		return skyport.Transfer{}, err
	}
	options := transfer.Options{Name: "copy", Attempts: pushAttempts, Progress: progress}
	moved, err := transfer.Push(ctx, c.http, c.base+jobPath(id, "files", "put", filesSegment(dir)), source, options)
	return moved, copyError(err, "copy %s to job %s", from, id.Short())
}

// CopyFrom copies a file or directory below the work directory of a job into a
// directory of this machine while the job is on its nodes. It lands under the
// name, "" for its own, by the same rules. With the path "." all that is in the
// work directory lands in the directory, and there is no name. Progress may be
// nil.
func (c *Client) CopyFrom(ctx context.Context, id skyport.JobID, from, dir, name string, progress func(skyport.Transfer)) (moved skyport.Transfer, err error) {
	from = path.Clean(from)
	base := path.Base(from)
	target := dir
	if name != "" && name != base && from != "." {
		// It gets its name when it is whole.
		if err := os.MkdirAll(dir, 0o777); err != nil { //nolint:gosec // as the umask of who asked for it says
			return moved, copyError(err, "copy %s of job %s", from, id.Short())
		}
		if target, err = os.MkdirTemp(dir, ".skyport-copy-"); err != nil {
			return moved, copyError(err, "copy %s of job %s", from, id.Short())
		}
		defer func() { err = errors.Join(err, os.RemoveAll(target)) }()
	}
	receiver := transfer.NewReceiver(target, transfer.ReceiverOptions{})
	place := transfer.Place(receiver)
	if from != "." {
		place = onlyOne{receiver, []byte(base)}
	}
	options := transfer.Options{Name: "copy", Attempts: pushAttempts, Progress: progress}
	moved, err = transfer.PullInto(ctx, c.http, c.base+jobPath(id, "files", "get", filesSegment(from)), place, options)
	err = errors.Join(err, receiver.Close())
	if err == nil && target != dir {
		err = os.Rename(filepath.Join(target, base), filepath.Join(dir, name))
	}
	return moved, copyError(err, "copy %s of job %s", from, id.Short())
}

func copyError(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return skyport.Errorf(skyport.CodeOf(err), "%s: %w", fmt.Sprintf(format, args...), err).WithHint("%s", skyport.HintOf(err))
}

// filesSegment makes one segment of a path: a transfer appends its own ones.
func filesSegment(path string) string { return base64.RawURLEncoding.EncodeToString([]byte(path)) }

// withName is the tree of one file or directory under another name.
func withName(tree *transfer.Tree, name string) (transfer.Source, error) {
	entries := tree.Manifest().Entries
	if name == "" || len(entries) == 0 {
		return tree, nil
	}
	top, _, _ := bytes.Cut(entries[0].Path, []byte("/"))
	m := &transfer.Manifest{Warnings: tree.Manifest().Warnings, Entries: make([]transfer.Entry, len(entries))}
	for i, e := range entries { // their order stays: all begin alike
		e.Path = append([]byte(name), e.Path[len(top):]...)
		m.Entries[i] = e
	}
	if err := m.Validate(transfer.Limits{}); err != nil {
		return nil, err
	}
	return renamed{m, tree}, nil
}

type renamed struct {
	manifest *transfer.Manifest
	tree     *transfer.Tree
}

func (r renamed) Manifest() *transfer.Manifest { return r.manifest }

func (r renamed) ReadChunk(ctx context.Context, c transfer.ChunkRef, p []byte) error {
	return r.tree.ReadChunk(ctx, c, p)
}

// onlyOne takes nothing but what was asked for: a node must not be able to put
// other files beside it.
type onlyOne struct {
	*transfer.Receiver
	name []byte
}

// Open refuses a tree with other names than the one at its top.
func (o onlyOne) Open(ctx context.Context, m *transfer.Manifest) (transfer.Sink, error) {
	if len(m.Missing) > 0 || len(m.Entries) == 0 {
		return nil, skyport.Errorf(skyport.CodeNotFound, "there is no file or directory %q", o.name)
	}
	for i := range m.Entries {
		if top, _, _ := bytes.Cut(m.Entries[i].Path, []byte("/")); !bytes.Equal(top, o.name) {
			return nil, skyport.Errorf(skyport.CodeInvalid, "the node sends %q, which was not asked for", skyport.Abbreviate(string(m.Entries[i].Path), 200))
		}
	}
	return o.Receiver.Open(ctx, m)
}
