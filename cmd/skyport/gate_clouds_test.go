package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/spool"
)

// What gate.yaml names is there when the gate starts; without a file nothing
// is, and a file that is wrong is refused.
func TestCloudsOfTheFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, sites, err string }{
		{"", "", ""},
		{"sites:\n  - {kind: aws, name: one, region: eu-central-1}\n  - {kind: aws, name: one, region: eu-central-1}\n", "", "gate.yaml:3:23"},
		{
			"sites:\n  - {kind: aws, name: one, region: eu-central-1, endpoint: 'http://127.0.0.1:1', ssh_from: [192.0.2.0/24], " +
				"credentials: {access_key: a, secret_key: b}}\n",
			"one", "",
		},
	} {
		s := &spool.Spool{Layout: spool.Layout{Dir: t.TempDir()}}
		if c.file != "" {
			if err := os.WriteFile(filepath.Join(s.Dir, "gate.yaml"), []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		clouds, err := openClouds(t.Context(), s, slog.New(slog.DiscardHandler))
		if err != nil || c.err != "" {
			if c.err == "" || err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, want %q", c.file, err, c.err)
			}
			continue
		}
		var names []string
		for _, p := range clouds.Providers() {
			sites, err := p.Sites(t.Context())
			if err != nil {
				t.Error(err)
			}
			for _, site := range sites {
				names = append(names, site.Name)
			}
			if _, ok := p.(gate.Lender); !ok {
				t.Errorf("sites of kind %s cannot lend", p.Kind())
			}
		}
		if strings.Join(names, " ") != c.sites {
			t.Errorf("%q: sites are %q, want %q", c.file, names, c.sites)
		}
		if err := clouds.Close(); err != nil {
			t.Error(err)
		}
	}
}
