package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

const (
	socketName = "worker.sock"
	// longestSocket is what the kernel takes as the path of a unix socket.
	longestSocket = 107
)

// sockets names the sockets of nodes, which lie in the nodes' directories, by
// paths that are short enough. Where the directory of the site is too long, a
// symbolic link in the system's temporary directory stands for it.
type sockets struct {
	dir string // of the site
}

// path is the path of a node's socket.
func (s sockets) path(id skyport.PartitionID, name string) string {
	path := filepath.Join(s.dir, string(id), name, socketName)
	if len(path) <= longestSocket {
		return path
	}
	return filepath.Join(s.link(), string(id), name, socketName)
}

func (s sockets) fits(id skyport.PartitionID, name string) bool {
	return len(s.path(id, name)) <= longestSocket
}

// link is the path of the symbolic link. It says the same after a restart.
func (s sockets) link() string {
	sum := sha256.Sum256([]byte(s.dir))
	return filepath.Join(linkParent(), hex.EncodeToString(sum[:4]))
}

func linkParent() string { return filepath.Join("/tmp", "swm-"+strconv.Itoa(os.Geteuid())) }

// ensure makes the link when the node needs it and it is not there: somebody
// may have tidied up. The directory around it is ours alone.
func (s sockets) ensure(path string) error {
	link := s.link()
	if !strings.HasPrefix(path, link+"/") {
		return nil
	}
	if target, err := os.Readlink(link); err == nil && target == s.dir {
		return nil
	}
	parent := linkParent()
	if err := os.Mkdir(parent, 0o700); err != nil && !os.IsExist(err) {
		return fmt.Errorf("short path for sockets: %w", err)
	}
	info, err := os.Lstat(parent)
	if err != nil {
		return fmt.Errorf("short path for sockets: %w", err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm() != 0o700 {
		return fmt.Errorf("short path for sockets: %s is not a directory of this user alone", parent)
	}
	if err := removeIfThere(link); err != nil {
		return err
	}
	if err := os.Symlink(s.dir, link); err != nil && !os.IsExist(err) {
		return fmt.Errorf("short path for sockets: %w", err)
	}
	return nil
}

// tidy removes the link, of which nobody has need, and the directory around
// it when it was the last.
func (s sockets) tidy() {
	if target, err := os.Readlink(s.link()); err == nil && target == s.dir {
		_ = os.Remove(s.link())     // it is made again when it is needed
		_ = os.Remove(linkParent()) // fails while other links are there
	}
}

// endpoint is where core dials the node.
func (n *node) endpoint() string { return "unix://" + n.socket }

// probe asks the worker who it is, over its socket.
func (n *node) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://worker/v1/worker", nil)
	if err != nil {
		return fmt.Errorf("worker of %s: %w", n.name, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("worker of %s: %w", n.name, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	var info protocol.Info
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&info); err != nil {
		return fmt.Errorf("worker of %s: %w", n.name, err)
	}
	if resp.StatusCode != http.StatusOK || info.Node != n.name {
		return fmt.Errorf("worker of %s: answers %s as node %q", n.name, resp.Status, info.Node)
	}
	return nil
}
