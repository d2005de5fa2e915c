package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/openworkload/skyport"
)

// nodeCommand is what bootstrap leaves on nodes for the few things that need root.
const nodeCommand = "/usr/local/sbin/skyport-node"

// AsRoot asks the node's own command to do one of the few things that need root.
// The error is what it said.
func AsRoot(ctx context.Context, limit time.Duration, stdin string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sudo", append([]string{"-n", nodeCommand}, args...)...) //nolint:gosec // the command checks its arguments
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = time.Second // what it has started may hold its output open
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("sudo %s %s: %w: %s", nodeCommand, args[0], err, skyport.Abbreviate(strings.TrimSpace(said.String()), 500))
	}
	return nil
}
