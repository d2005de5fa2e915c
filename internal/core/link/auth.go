package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"

	"github.com/openworkload/skyport"
)

// What went wrong in a handshake, as far as the next try depends on it.
var (
	errSSH   = errors.New("no SSH connection")
	errAuth  = errors.New("login refused")
	errSlow  = errors.New("the SSH server is too slow")
	errSetup = errors.New("the node is not set up")
)

// clientConfig says how core logs in to a node, and which host key it has.
func (l *Link) clientConfig(i int, user string) (*ssh.ClientConfig, error) {
	keys := l.opts.Keys
	if keys == nil {
		return nil, errors.New("the partition has no keys")
	}
	signer, err := ssh.ParsePrivateKey(keys.Client.Private)
	if err != nil {
		return nil, fmt.Errorf("the partition's client key: %w", err)
	}
	line := l.opts.Nodes[i].HostKey
	if line == "" {
		if i >= len(keys.Hosts) {
			return nil, errors.New("the partition has no host key for it")
		}
		line = keys.Hosts[i].Public
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, fmt.Errorf("its host key %q: %w", skyport.Abbreviate(line, 60), err)
	}
	config := &ssh.ClientConfig{
		User: user,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if bytes.Equal(key.Marshal(), host.Marshal()) {
				return nil
			}
			return fmt.Errorf("its host key is %s %s, and must be %s: %w",
				key.Type(), ssh.FingerprintSHA256(key), ssh.FingerprintSHA256(host), ErrRefused)
		},
		HostKeyAlgorithms: []string{host.Type()},
		ClientVersion:     "SSH-2.0-skyport",
	}
	if host.Type() == ssh.KeyAlgoRSA {
		config.HostKeyAlgorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	config.Ciphers = []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR}
	if !cpu.X86.HasAES && !cpu.ARM64.HasAES {
		config.Ciphers = []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherAES128CTR}
	}
	return config, nil
}

// shake makes the SSH connection and tells what is wrong with it if it fails.
func (m *machine) shake(ctx context.Context, conn net.Conn, limit time.Duration) (*wire, error) {
	w, err := shake(ctx, conn, m.address(), m.config, limit, &m.tasks)
	if err == nil {
		return w, nil
	}
	var noCommon *ssh.AlgorithmNegotiationError
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx) //nolint:wrapcheck // says it all
	case errors.Is(err, ErrRefused):
		return nil, skyport.Errorf(skyport.CodeUnavailable, "the SSH server at %s is not the node: %w", m.address(), err).
			WithHint("another machine may have taken over the address; if the node was made anew, so must its partition be")
	case errors.As(err, &noCommon):
		return nil, skyport.Errorf(skyport.CodeUnavailable, "the SSH server at %s: %w: %s", m.address(), ErrRefused, skyport.Abbreviate(err.Error(), 500)).
			WithHint("it must have a host key of the type %s and ciphers as in OpenSSH's own configuration", strings.Join(m.config.HostKeyAlgorithms, " or "))
	case strings.Contains(err.Error(), "unable to authenticate"):
		return nil, fmt.Errorf("%w: the SSH server at %s does not take the partition's key for the user %s (yet)", errAuth, m.address(), m.ep.user)
	}
	kind := errSSH
	if errors.Is(err, errSlow) {
		kind = errSlow
	}
	return nil, fmt.Errorf("%w: %s: %s", kind, m.address(), skyport.Abbreviate(err.Error(), 300))
}
