package bootstrap_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/bootstrap"
)

func config(t *testing.T, life time.Duration, names ...string) bootstrap.Config {
	t.Helper()
	keys, err := bootstrap.NewKeys(names)
	if err != nil {
		t.Fatal(err)
	}
	return bootstrap.Config{Name: "swm-1a2b3c4d", Nodes: names, Keys: keys, Life: life}
}

func TestUserData(t *testing.T) {
	t.Parallel()
	if bootstrap.User != gate.NodeUser || bootstrap.Dir != gate.NodeDir {
		t.Errorf("user %s, directory %s are not those of the gate", bootstrap.User, bootstrap.Dir)
	}
	c := config(t, 12*time.Hour, "swm-1a2b3c4d-main", "swm-1a2b3c4d-compute1")
	for node := range c.Nodes {
		text, err := bootstrap.UserData(c, node)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := bootstrap.UserData(c, node); err != nil || again != text {
			t.Errorf("node %d: another text the second time, %v", node, err)
		}
		if !strings.HasPrefix(text, "#cloud-config\n") {
			t.Errorf("node %d: begins with %.20q", node, text)
		}
		for i, k := range c.Keys.Hosts {
			if has := strings.Contains(text, k.Public); has != (i == node) {
				t.Errorf("node %d: holds the host key of node %d: %v", node, i, has)
			}
		}
		secret := strings.Split(string(c.Keys.Inner.Private), "\n")[2]
		if strings.Contains(text, secret) {
			t.Errorf("node %d: the inner private key is in the user data", node)
		}
		packed := bootstrap.Compressed(text)
		r, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(r); err != nil || string(back) != text {
			t.Errorf("node %d: unpacks to something else, %v", node, err)
		}
		t.Logf("node %d: %d bytes, %d compressed", node, len(text), len(packed))
	}
}

func TestUserDataRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*bootstrap.Config){
		"no keys":        func(c *bootstrap.Config) { c.Keys = nil },
		"no host key":    func(c *bootstrap.Config) { c.Keys.Hosts = nil },
		"no life":        func(c *bootstrap.Config) { c.Life = 0 },
		"short lease":    func(c *bootstrap.Config) { c.Longest = time.Second },
		"evil name":      func(c *bootstrap.Config) { c.Nodes = []string{"a'; reboot"} },
		"name with dots": func(c *bootstrap.Config) { c.Nodes = []string{"a.b"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, time.Hour, "main")
			change(&c)
			if _, err := bootstrap.UserData(c, 0); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestUserDataSchema(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("cloud-init")
	if err != nil {
		t.Skip("needs cloud-init for its schema")
	}
	c := config(t, time.Hour, "main", "compute1")
	text, err := bootstrap.UserData(c, 1)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, tool, "schema", "--config-file", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestJoinQuotes(t *testing.T) {
	t.Parallel()
	c := config(t, time.Hour, "main")
	j := bootstrap.Join{Keys: c.Keys, Dir: "/a'b\n\"c", Nodes: []bootstrap.Node{{Name: "main\nProxyCommand evil", Address: "1.2.3.4 x"}}}
	script := j.Script(0)
	for _, evil := range []string{"\nProxyCommand", "1.2.3.4 x", "a'b"} {
		if strings.Contains(script, evil) {
			t.Errorf("the script holds %q", evil)
		}
	}
}
