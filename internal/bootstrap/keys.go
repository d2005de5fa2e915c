package bootstrap

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Key is one Ed25519 key pair in the forms that OpenSSH reads.
type Key struct {
	Private []byte `json:"private"` // PEM
	Public  string `json:"public"`  // one line, as in authorized_keys
}

// Keys are all keys of one partition. Core makes them before anything exists,
// and forgets them when nothing exists any more.
type Keys struct {
	Client Key   `json:"client"` // core logs in with it
	Inner  Key   `json:"inner"`  // the nodes reach each other with it
	Hosts  []Key `json:"hosts"`  // of the nodes' SSH servers, in the order of the nodes
}

// NewKeys makes the keys of a partition whose nodes have these names, main first.
func NewKeys(nodes []string) (*Keys, error) {
	keys := &Keys{Hosts: make([]Key, len(nodes))}
	made := map[string]*Key{"skyport": &keys.Client, "skyport-inner": &keys.Inner}
	for i, name := range nodes {
		made[name] = &keys.Hosts[i]
	}
	for comment, key := range made {
		var err error
		if *key, err = newKey(comment); err != nil {
			return nil, fmt.Errorf("make the key %s: %w", comment, err)
		}
	}
	return keys, nil
}

func newKey(comment string) (Key, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, err //nolint:wrapcheck // NewKeys wraps
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return Key{}, err //nolint:wrapcheck // NewKeys wraps
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		return Key{}, err //nolint:wrapcheck // NewKeys wraps
	}
	text := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line)))
	return Key{Private: pem.EncodeToMemory(block), Public: text + " " + comment}, nil
}
