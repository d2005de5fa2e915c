package core

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// lender is a gate that counts what it is asked for.
type lender struct {
	asked []string
	err   error
}

func (l *lender) Registry(_ context.Context, site, host string) (gate.Login, error) {
	l.asked = append(l.asked, site+" "+host)
	return gate.Login{Username: "site", Password: "token"}, l.err
}

func (l *lender) Storage(_ context.Context, site, name string, life time.Duration) (gate.Mount, error) {
	l.asked = append(l.asked, fmt.Sprint(site, " ", name, " ", life))
	return gate.Mount{Account: "a", Container: "c", Endpoint: "https://a", SAS: "s"}, l.err
}

func TestRegistriesThatSitesOpen(t *testing.T) {
	t.Parallel()
	lab := []protocol.Registry{{Host: "lab.azurecr.io", Username: "site", Password: "token"}}
	own := []protocol.Registry{{Host: "lab.azurecr.io", Username: "ann", Password: "p"}}
	s := newSecrets(t, t.TempDir())
	if _, err := s.put(t.Context(), "ann", skyport.SecretRegistry, "lab.azurecr.io", api.SecretValue{Username: "ann", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		owner       skyport.UserID
		site, image string
		asked       int
		want        []protocol.Registry
	}{
		{"bob", "az", "lab.azurecr.io/solver:2", 1, lab},
		{"bob", "az", "LAB.azurecr.io/solver:2", 1, lab},
		{"ann", "az", "lab.azurecr.io/solver:2", 0, own}, // who has a login uses it
		{"bob", "local", "lab.azurecr.io/solver:2", 0, nil},
		{"bob", "az", "other.azurecr.io/solver", 0, nil},
		{"bob", "az", "alpine", 0, nil},
	} {
		g := &lender{}
		l := &loans{secrets: s, gate: g, sites: func() []skyport.Site {
			return []skyport.Site{{Name: "local"}, {Name: "az", Registries: []string{"lab.azurecr.io"}}}
		}}
		got, err := l.registriesFor(t.Context(), test.owner, test.site, test.image)
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" || len(g.asked) != test.asked {
			t.Errorf("%s of %s at %s asks for %q, %v (-want +got):\n%s", test.image, test.owner, test.site, g.asked, err, diff)
		}
		g.err = gate.ErrNotFound
		if _, err := l.registriesFor(t.Context(), test.owner, test.site, test.image); err != nil {
			t.Errorf("a registry that is opened no more: %v", err)
		}
		g.err = skyport.Errorf(skyport.CodeUnavailable, "away")
		if _, err := l.registriesFor(t.Context(), test.owner, test.site, test.image); (skyport.CodeOf(err) == skyport.CodeUnavailable) != (test.asked > 0) {
			t.Errorf("%s without a gate: %v", test.image, err)
		}
	}
}

func TestStoragesThatSitesOpen(t *testing.T) {
	t.Parallel()
	g := &lender{}
	l := &loans{gate: g}
	got, err := l.storage(t.Context(), "az", "refdata", time.Hour)
	want := protocol.Storage{Name: "refdata", Account: "a", Container: "c", Endpoint: "https://a", SAS: "s"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" || g.asked[0] != "az refdata 1h0m0s" {
		t.Errorf("asks for %q, %v (-want +got):\n%s", g.asked, err, diff)
	}
	g.err = gate.ErrNotFound
	if _, err := l.storage(t.Context(), "az", "refdata", time.Hour); skyport.CodeOf(err) != skyport.CodeUnsupported {
		t.Errorf("a storage that is no more: %v", err)
	}
}
