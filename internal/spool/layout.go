package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/pki"
)

// Layout tells where the files of a spool lie. The names under secure/ are a
// contract with existing terminals.
type Layout struct {
	Dir string // absolute
}

// Default is the directory of the spool: the one asked for, else $SWM_SPOOL,
// else ~/.swm/spool.
func Default(asked string) (string, error) {
	dir := asked
	if dir == "" {
		dir = os.Getenv("SWM_SPOOL")
	}
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the default spool: %w", err)
		}
		dir = filepath.Join(home, ".swm", "spool")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the spool %s: %w", dir, err)
	}
	return dir, nil
}

// HomePair is the certificate of the person whose home directory it is, where
// terminals look for it: ~/.swm/cert.pem and key.pem.
func HomePair(home string) pki.Pair { return pairIn(filepath.Join(home, ".swm")) }

func (l Layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.Dir}, parts...)...)
}

func pairIn(dir string) pki.Pair {
	return pki.Pair{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

// ConfigFile is the configuration.
func (l Layout) ConfigFile() string { return l.path("skyport.yaml") }

// VersionFile holds the version of the layout.
func (l Layout) VersionFile() string { return l.path("version") }

// OwnerFile holds the id of the core of this spool.
func (l Layout) OwnerFile() string { return l.path("owner") }

// GridCA is the root CA.
func (l Layout) GridCA() pki.Pair { return pairIn(l.path("secure", "grid")) }

// ClusterCA is the CA that signs leaves.
func (l Layout) ClusterCA() pki.Pair { return pairIn(l.path("secure", "cluster")) }

// CAChain is what clients verify servers with, and servers clients.
func (l Layout) CAChain() string { return l.path("secure", "cluster", "ca-chain-cert.pem") }

// Node is core's certificate.
func (l Layout) Node() pki.Pair { return pairIn(l.path("secure", "node")) }

// Gate is the gate's certificate.
func (l Layout) Gate() pki.Pair { return pairIn(l.path("secure", "gate")) }

// Users is the directory of the users' certificates.
func (l Layout) Users() string { return l.path("secure", "users") }

// User is the certificate of a user. [CheckUserName] tells which names may be.
func (l Layout) User(name string) pki.Pair { return pairIn(filepath.Join(l.Users(), name)) }

// Database is core's store.
func (l Layout) Database() string { return l.path("db", "skyport.db") }

// SealingKey seals the keys and credentials in the database. Core makes it when
// it is not there.
func (l Layout) SealingKey() string { return l.path("secure", "sealing.key") }

// Jobs is the directory of what jobs leave: logs and outputs.
func (l Layout) Jobs() string { return l.path("jobs") }

// Inputs is the directory of the inputs that terminals staged.
func (l Layout) Inputs() string { return l.path("inputs") }

// GateState is the directory of what the gate keeps.
func (l Layout) GateState() string { return l.path("gate") }

// Local is the directory of the local site's nodes.
func (l Layout) Local() string { return l.path("local") }

// Run is the directory of locks and addresses of running daemons.
func (l Layout) Run() string { return l.path("run") }

// Log is the directory of the daemons' logs, when they log to files.
func (l Layout) Log() string { return l.path("log") }

// dirs lists the directories that a spool has, parents first.
func (l Layout) dirs() []string {
	return []string{
		l.Dir, l.path("secure"), l.path("secure", "grid"), l.path("secure", "cluster"), l.path("secure", "node"),
		l.path("secure", "gate"), l.Users(), l.path("db"), l.Jobs(), l.Inputs(), l.GateState(), l.Local(), l.Run(), l.Log(),
	}
}

// CoreFiles is what core loads: its certificate and the CAs.
func (l Layout) CoreFiles() pki.Files { return pki.Files{Pair: l.Node(), CA: l.CAChain()} }

// GateFiles is what the gate loads.
func (l Layout) GateFiles() pki.Files { return pki.Files{Pair: l.Gate(), CA: l.CAChain()} }

// CheckUserName says what is wrong with a user's name, or nil. It becomes the
// name of a directory and the common name of a certificate.
func CheckUserName(name string) error {
	odd := strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-@+", r))
	})
	if slices.Contains(certificateNames, name) {
		return skyport.Errorf(skyport.CodeInvalid, "%q cannot be a user's name: it is the name of another certificate", name)
	}
	if name == "" || len(name) > 64 || odd >= 0 || name[0] == '.' || name[0] == '-' {
		return skyport.Errorf(skyport.CodeInvalid, "%q cannot be a user's name", skyport.Abbreviate(name, 70)).
			WithHint("use 1 to 64 letters, digits and . _ - @ +, not beginning with . or -")
	}
	return nil
}
