package live

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud/cloudtest"
)

// lender is a provider whose site has a registry and a storage.
type lender struct{ Provider }

func (lender) Registry(_ context.Context, site, host string) (gate.Login, error) {
	return gate.Login{Username: site + " " + host}, nil
}

func (lender) Storage(_ context.Context, site, name string, life time.Duration) (gate.Mount, error) {
	return gate.Mount{Account: site + " " + name, Expires: time.Unix(0, 0).Add(life)}, nil
}

func TestSitesLend(t *testing.T) {
	t.Parallel()
	w := &worlds{worlds: map[string]*cloudtest.World{}}
	for _, lends := range []bool{true, false} {
		l, err := Open(t.Context(), Options{
			Kinds: []string{"azure"},
			Read:  func() ([]Site, error) { return []Site{{"azure", "one", nil}}, nil },
			Open: func(wanted Site) (func() (Provider, error), error) {
				start, err := w.open(wanted)
				if !lends || err != nil {
					return start, err
				}
				return func() (Provider, error) { p, err := start(); return lender{p}, err }, nil
			},
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		login, loginErr := l.kinds[0].Registry(t.Context(), "one", "lab.test")
		mount, mountErr := l.kinds[0].Storage(t.Context(), "one", "data", time.Hour)
		if lends && (loginErr != nil || mountErr != nil || login.Username != "one lab.test" || mount.Account != "one data" || mount.Expires.Unix() != 3600) {
			t.Errorf("lent are %v, %v and %v, %v", login, loginErr, mount, mountErr)
		}
		if !lends && (!errors.Is(loginErr, gate.ErrNotFound) || !errors.Is(mountErr, gate.ErrNotFound)) {
			t.Errorf("where nothing is lent: %v, %v", loginErr, mountErr)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
