package azure

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	azcloud "github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Storage is a container of blobs that jobs can mount.
type Storage struct {
	Name      string // that jobs ask for
	Account   string // storage account
	Container string // of blobs, in the account
}

// storageName is what can be the name of a directory on nodes.
var storageName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checkLoans says what is wrong with what the site shall open for jobs.
func (o *Options) checkLoans() error {
	for i, host := range o.Registries {
		o.Registries[i] = strings.ToLower(host)
		if !registryHost.MatchString(o.Registries[i]) {
			return notRegistry(o.Name, host)
		}
	}
	seen := map[string]bool{}
	for _, st := range o.Storages {
		switch {
		case !storageName.MatchString(st.Name):
			return skyport.Errorf(skyport.CodeInvalid, "azure site %q: %q is no name for a storage", o.Name, skyport.Abbreviate(st.Name, 80)).
				WithHint("It has small letters, digits and dashes, at most 63.")
		case seen[st.Name]:
			return skyport.Errorf(skyport.CodeInvalid, "azure site %q has two storages named %q", o.Name, st.Name)
		case !accountName.MatchString(st.Account) || !containerName.MatchString(st.Container):
			return notStorage(st.Account, st.Container)
		}
		seen[st.Name] = true
	}
	return nil
}

func notRegistry(site, host string) error {
	return skyport.Errorf(skyport.CodeInvalid, "azure site %q: %q is no registry of Azure's", site, skyport.Abbreviate(host, 100)).
		WithHint("They are called name.azurecr.io.")
}

func notStorage(account, container string) error {
	return skyport.Errorf(skyport.CodeInvalid, "%q and %q are no storage account and container",
		skyport.Abbreviate(account, 50), skyport.Abbreviate(container, 80))
}

// Registry returns a login of one of the site's registries.
func (s *site) Registry(ctx context.Context, host string) (gate.Login, error) {
	if !slices.Contains(s.o.Registries, strings.ToLower(host)) {
		return gate.Login{}, fmt.Errorf("site %s opens no registry %s: %w", s.o.Name, skyport.Abbreviate(host, 100), gate.ErrNotFound)
	}
	user, token, err := s.RegistryLogin(ctx, host)
	return gate.Login{Username: user, Password: token}, err
}

// Storage returns what opens one of the site's storages. What is needed for
// longer than Azure's keys live is opened for as long as they do.
func (s *site) Storage(ctx context.Context, name string, life time.Duration) (gate.Mount, error) {
	at := slices.IndexFunc(s.o.Storages, func(st Storage) bool { return st.Name == name })
	if at < 0 {
		return gate.Mount{}, fmt.Errorf("site %s has no storage %q: %w", s.o.Name, skyport.Abbreviate(name, 80), gate.ErrNotFound)
	}
	st := s.o.Storages[at]
	life = min(life, longestGrant)
	until := time.Now().Add(life).UTC().Truncate(time.Second)
	grant, err := s.StorageGrant(ctx, st.Account, st.Container, life)
	if err != nil {
		return gate.Mount{}, err
	}
	u, err := url.Parse(grant)
	if err != nil { // its text would quote the signature
		return gate.Mount{}, skyport.Errorf(skyport.CodeInternal, "the grant for storage %s is no URL", name)
	}
	return gate.Mount{Account: st.Account, Container: st.Container, Endpoint: "https://" + u.Host, SAS: u.RawQuery, Expires: until}, nil
}

// blobHost is the host of an account's blobs, in the cloud that the site is in. See
// https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure
func (s *site) blobHost(account string) string {
	suffix := "core.windows.net"
	switch s.base {
	case azcloud.AzureGovernment.Services[azcloud.ResourceManager].Endpoint:
		suffix = "core.usgovcloudapi.net"
	case azcloud.AzureChina.Services[azcloud.ResourceManager].Endpoint:
		suffix = "core.chinacloudapi.cn"
	}
	return account + ".blob." + suffix
}
