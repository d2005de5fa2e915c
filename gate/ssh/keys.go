package ssh

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/openworkload/skyport"
)

// hostKey reads the key of a host's server: a line as ssh-keyscan prints it, one
// without the name before the key, or the path of a known_hosts file.
func hostKey(text, address string) (ssh.PublicKey, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, errors.New("there is none, and a host is not trusted at first sight")
	}
	if strings.Contains(text, "\n") {
		return nil, errors.New("it has several lines; give one")
	}
	for line := text; ; {
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err == nil && !isOption(line) {
			return key, nil
		}
		_, rest, more := strings.Cut(line, " ")
		if !more || line != text {
			break
		}
		line = strings.TrimSpace(rest)
	}
	file, err := home(text)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(file) {
		return nil, fmt.Errorf("%q is neither a public key nor the path of a known_hosts file", skyport.Abbreviate(text, 80))
	}
	return knownKey(file, address)
}

// isOption says whether a line begins with something other than a key's type:
// that would be read as an option of authorized_keys.
func isOption(line string) bool {
	first, _, _ := strings.Cut(line, " ")
	return !strings.HasPrefix(first, "ssh-") && !strings.HasPrefix(first, "ecdsa-") && !strings.HasPrefix(first, "sk-")
}

// knownKey looks a host up in a known_hosts file, names hashed or not.
func knownKey(file, address string) (ssh.PublicKey, error) {
	check, err := knownhosts.New(file)
	if err != nil {
		return nil, fmt.Errorf("known_hosts file: %w", err)
	}
	// No host has this key: the refusal tells the ones that are known.
	stranger, err := ssh.NewPublicKey(make(ed25519.PublicKey, ed25519.PublicKeySize))
	if err != nil {
		return nil, fmt.Errorf("known_hosts file: %w", err)
	}
	var refusal *knownhosts.KeyError
	if err := check(address, &net.TCPAddr{IP: net.IPv4zero}, stranger); !errors.As(err, &refusal) || len(refusal.Want) == 0 {
		return nil, fmt.Errorf("%s has no key of %s", file, address)
	}
	best := slices.MinFunc(refusal.Want, func(a, b knownhosts.KnownKey) int { return rank(a.Key) - rank(b.Key) })
	return best.Key, nil
}

func rank(key ssh.PublicKey) int {
	if at := slices.Index([]string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521}, key.Type()); at >= 0 {
		return at
	}
	return 9
}

// algorithms are those by which a server can prove that it has the key.
func algorithms(key ssh.PublicKey) []string {
	if key.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{key.Type()}
}

// errRefused marks what trying again soon does not mend: a wrong host key, a
// key that the host does not take.
var errRefused = errors.New("refused")

// vouched admits the one key that the configuration has.
func vouched(host string, want ssh.PublicKey) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, got ssh.PublicKey) error {
		if bytes.Equal(got.Marshal(), want.Marshal()) {
			return nil
		}
		return skyport.Errorf(skyport.CodeForbidden, "host %s has the key %s, but the configuration says %s: %w",
			host, ssh.FingerprintSHA256(got), ssh.FingerprintSHA256(want), errRefused).
			WithHint("either somebody is in between, or the host was installed anew: compare with ssh-keygen -lf on the host itself, then mend host_key")
	}
}

// signers are the keys that a login may be tried with: the configured file, or
// what the agent and ~/.ssh have. Close the closer after the login.
func signers(ctx context.Context, file string) (found []ssh.Signer, closer io.Closer, err error) {
	if file != "" {
		one, err := readKey(file)
		if err != nil {
			return nil, nil, err
		}
		return []ssh.Signer{one}, io.NopCloser(nil), nil
	}
	closer = io.NopCloser(nil)
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" {
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
			if end, ok := ctx.Deadline(); ok {
				_ = conn.SetDeadline(end) // an agent that hangs ends with the login
			}
			closer = conn
			if all, err := agent.NewClient(conn).Signers(); err == nil {
				found = all
			}
		}
	}
	var failed error
	for _, name := range []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"} {
		path, err := home(name)
		if err != nil {
			break
		}
		switch one, err := readKey(path); {
		case err == nil:
			found = append(found, one)
		case !errors.Is(err, fs.ErrNotExist):
			failed = errors.Join(failed, err)
		}
	}
	if len(found) == 0 {
		return nil, nil, errors.Join(failed, closer.Close(), skyport.Errorf(skyport.CodeInvalid, "there is no key to log in with").
			WithHint("set key to a private key file, or start the gate with an SSH agent"))
	}
	return found, closer, nil
}

// readKey reads a private key that nobody else can read.
func readKey(path string) (ssh.Signer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, skyport.Errorf(skyport.CodeInvalid, "others may read the key file %s (mode %04o)", path, info.Mode().Perm()).
			WithHint("chmod 600 %s", path)
	}
	text, err := io.ReadAll(io.LimitReader(file, 1<<16))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, skyport.Errorf(skyport.CodeInvalid, "the key file %s has a passphrase", path).
			WithHint("add it to an SSH agent (ssh-add) and leave key empty, or make a key for Sky Port alone")
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return signer, nil
}
