package pki

import (
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
)

// pythonClient connects as terminals written in Python do, but stricter: with
// every check that OpenSSL has for certificates.
const pythonClient = `
import socket, ssl, sys
port, ca, cert, key, host = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags |= ssl.VERIFY_X509_STRICT
if cert:
    context.load_cert_chain(cert, key)
with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as plain:
    with context.wrap_socket(plain, server_hostname=host) as secure:
        print(secure.makefile().readline().strip())
`

// What Go and OpenSSL think of a certificate is not always the same.
func TestPythonTerminal(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	h, foreign := newHouse(t), newHouse(t)
	core := reloader(t, h.files(h.core))
	address := serve(t, core.ServerTLS(), func(state tls.ConnectionState) string {
		_, name, err := core.User(state)
		return fmt.Sprintf("%s %v", name, err)
	})
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ca   string
		pair Pair
		host string
		want string // of the output or of the error
		fail bool
	}{
		"by name":        {h.chain, h.user, "localhost", "alice <nil>", false},
		"by address":     {h.chain, h.user, "127.0.0.1", "alice <nil>", false},
		"no certificate": {h.chain, Pair{}, "localhost", "no client certificate", false},
		"foreign user":   {h.chain, foreign.user, "localhost", "of another CA", false},
		"foreign server": {foreign.chain, h.user, "localhost", "CERTIFICATE_VERIFY_FAILED", true},
		"wrong name":     {h.chain, h.user, "example.org", "CERTIFICATE_VERIFY_FAILED", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), python, "-c", pythonClient,
				port, c.ca, c.pair.Cert, c.pair.Key, c.host).CombinedOutput()
			if (err != nil) != c.fail || !strings.Contains(string(out), c.want) {
				t.Errorf("Python says %q, %v: want %q", out, err, c.want)
			}
		})
	}
}
