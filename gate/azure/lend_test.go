package azure_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/azure"
	"github.com/openworkload/skyport/gate/cloud"
	azuretest "github.com/openworkload/skyport/test/azure"
)

// everywhere is a client to which the emulator is all hosts: what Azure has under
// names of its own, the emulator has under one.
func everywhere(t *testing.T, e *azuretest.Emulator) *http.Client {
	t.Helper()
	at, err := url.Parse(e.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := e.Client()
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("the emulator's client has a %T", client.Transport)
	}
	transport.TLSClientConfig.ServerName = at.Hostname()
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at.Host)
	}
	return client
}

func lends(t *testing.T, e *azuretest.Emulator, change func(*azure.Options)) *cloud.Provider {
	t.Helper()
	o := azure.Options{
		Name: "az", Region: e.Location(), Subscription: e.Subscription(), Tenant: e.Tenant(), ClientID: e.ClientID(), ClientSecret: e.ClientSecret(),
		Endpoint: e.URL(), Authority: e.Authority(), PricesURL: e.PricesURL(), HTTP: everywhere(t, e), Poll: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Registries: []string{"LabImages.azurecr.io"}, Storages: []azure.Storage{{Name: "refdata", Account: "labstore", Container: "reference"}},
	}
	if change != nil {
		change(&o)
	}
	c, err := azure.New(o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := cloud.New(cloud.Options{Kind: azure.Kind, Clouds: []cloud.Cloud{c}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestLoans asks the emulator for all that a site lends, by the provider that
// the gate has.
func TestLoans(t *testing.T) {
	t.Parallel()
	e := emulator(t, nil)
	p := lends(t, e, nil)
	sites, err := p.Sites(t.Context())
	if err != nil || len(sites) != 1 || len(sites[0].Registries) != 1 || sites[0].Registries[0] != "labimages.azurecr.io" ||
		len(sites[0].Storages) != 1 || sites[0].Storages[0] != "refdata" {
		t.Errorf("the site tells of %+v, %v", sites, err)
	}
	login, err := p.Registry(t.Context(), "az", "labimages.azurecr.io")
	if err != nil || login.Username != "00000000-0000-0000-0000-000000000000" || strings.Count(login.Password, ".") != 2 {
		t.Errorf("the login is %v, %v", login, err)
	}
	before := time.Now()
	mount, err := p.Storage(t.Context(), "az", "refdata", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	left := mount.Expires.Sub(before)
	if mount.Account != "labstore" || mount.Container != "reference" || mount.Endpoint != "https://labstore.blob.core.windows.net" ||
		left < 59*time.Minute || left > 61*time.Minute {
		t.Errorf("the mount is %v", mount)
	}
	q, err := url.ParseQuery(mount.SAS)
	if err != nil || q.Get("sp") != "rl" || q.Get("sr") != "c" || q.Get("se") != mount.Expires.Format(time.RFC3339) {
		t.Errorf("the signature is for %v, %v", q, err)
	}
	// https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas#version-2020-12-06-and-later
	signed := strings.Join([]string{
		"rl", q.Get("st"), q.Get("se"), "/blob/labstore/reference", q.Get("skoid"), q.Get("sktid"), q.Get("skt"), q.Get("ske"), "b", q.Get("skv"),
		"", "", "", "", "https", q.Get("sv"), "c", "", "", "", "", "", "", "",
	}, "\n")
	mac := hmac.New(sha256.New, azuretest.StorageKey)
	mac.Write([]byte(signed))
	if want := base64.StdEncoding.EncodeToString(mac.Sum(nil)); q.Get("sig") != want {
		t.Errorf("the signature is %s, not %s", q.Get("sig"), want)
	}
	if long, err := p.Storage(t.Context(), "az", "refdata", 1000*time.Hour); err != nil || time.Until(long.Expires) > 7*24*time.Hour {
		t.Errorf("for longer than a key lives: %v, %v", long, err)
	}
	if _, err := p.Registry(t.Context(), "az", "otherimages.azurecr.io"); !errors.Is(err, gate.ErrNotFound) {
		t.Errorf("a registry that is not ours: %v", err)
	}
	if _, err := p.Storage(t.Context(), "az", "other", time.Hour); !errors.Is(err, gate.ErrNotFound) {
		t.Errorf("a storage that is not ours: %v", err)
	}
}

// TestWrongLoans are refused before anything is asked for.
func TestWrongLoans(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*azure.Options){
		"another's registry": func(o *azure.Options) { o.Registries = []string{"labimages.azurecr.io.evil.test"} },
		"a storage's name": func(o *azure.Options) {
			o.Storages = []azure.Storage{{Name: "../x", Account: "labstore", Container: "reference"}}
		},
		"a storage's account": func(o *azure.Options) {
			o.Storages = []azure.Storage{{Name: "x", Account: "evil.test/", Container: "reference"}}
		},
		"two of one name": func(o *azure.Options) {
			o.Storages = []azure.Storage{{Name: "x", Account: "abc", Container: "abc"}, {Name: "x", Account: "abd", Container: "abc"}}
		},
	} {
		o := azure.Options{Name: "az", Region: "westeurope", Subscription: "s", Tenant: "t", ClientID: "c", ClientSecret: "s"}
		change(&o)
		if _, err := azure.New(o); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}
