package azure

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	azcloud "github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"

	"github.com/openworkload/skyport"
)

// Options describe one site. Subscription and Region are needed, and Name.
type Options struct {
	Name   string // of the site
	Region string // such as westeurope

	DefaultFlavor string            // offered first; empty: Standard_D4s_v5
	DefaultImage  string            // for jobs that name none; empty: Ubuntu, with drivers where there are GPUs
	Flavors       []string          // patterns as [path.Match] of what is offered; empty: D, E and F from v5 on, and all with GPUs
	Images        map[string]string // more images: name -> publisher:offer:sku:version, or the id of a gallery's image
	Limits        skyport.Limits
	SSHFrom       []netip.Prefix    // who may reach port 22; empty: where core comes from
	Disk          skyport.Bytes     // system disk; 0: 64 GiB, or the image's own where it is not a plain distribution's
	ExtraTags     map[string]string // put on every resource beside ours
	Currency      string            // of prices; empty: USD

	Registries []string  // hosts of container registries that our login opens for jobs
	Storages   []Storage // containers of blobs that jobs can mount

	// Who we are: a service principal with a secret or a certificate, a managed
	// identity, the login of the command line tool az, or with none of these
	// whatever the SDK finds in the environment.
	Subscription        string
	Tenant              string
	ClientID            string
	ClientSecret        string
	SecretFile          string    // holds the secret; read again when it changes
	SecretExpires       time.Time // when the secret does, if known: the check warns before it
	Certificate         string    // file with certificate and key, PEM or PKCS#12; read again when it changes
	CertificatePassword string
	ManagedIdentity     string // "system", or the client id of a user-assigned one
	CLI                 bool

	// Of other clouds than the public one, and of tests: base URLs of ARM, of
	// the token service and of the retail prices.
	Endpoint  string
	Authority string
	PricesURL string

	HTTP   *http.Client  // nil: the SDK's own
	Logger *slog.Logger  // nil: slog's default
	Poll   time.Duration // first pause when waiting for Azure; 0: 2 s. It grows, and Azure's Retry-After counts
}

const (
	defaultFlavor = "Standard_D4s_v5"
	defaultPrices = "https://prices.azure.com"
	defaultPoll   = 2 * time.Second
	slowestPoll   = 10 * time.Second
)

// check fills what is empty, and says what is wrong.
func (o *Options) check() error {
	for _, field := range []struct{ name, value string }{{"name", o.Name}, {"region", o.Region}, {"subscription", o.Subscription}} {
		if field.value == "" {
			return skyport.Errorf(skyport.CodeInvalid, "azure site %q has no %s", o.Name, field.name).
				WithHint("az account show --query id tells the subscription, az account list-locations -o table the regions.")
		}
	}
	for _, pattern := range o.Flavors {
		if _, err := path.Match(pattern, ""); err != nil {
			return skyport.Errorf(skyport.CodeInvalid, "azure site %q: %q is no pattern of flavors", o.Name, pattern)
		}
	}
	for name, urn := range o.Images {
		if _, err := parseImage(urn); err != nil {
			return skyport.Errorf(skyport.CodeInvalid, "azure site %q: image %q: %w", o.Name, name, err)
		}
	}
	principal := o.ClientSecret != "" || o.SecretFile != "" || o.Certificate != ""
	if principal && (o.Tenant == "" || o.ClientID == "") {
		return skyport.Errorf(skyport.CodeInvalid, "azure site %q has a secret or a certificate, but no tenant or no client id", o.Name).
			WithHint("az ad sp create-for-rbac tells both as tenant and appId.")
	}
	if err := o.checkLoans(); err != nil {
		return err
	}
	o.Region = strings.ToLower(strings.ReplaceAll(o.Region, " ", ""))
	o.Currency = cmp.Or(o.Currency, "USD")
	o.DefaultFlavor = cmp.Or(o.DefaultFlavor, defaultFlavor)
	o.PricesURL = strings.TrimSuffix(cmp.Or(o.PricesURL, defaultPrices), "/")
	o.Endpoint, o.Authority = strings.TrimSuffix(o.Endpoint, "/"), strings.TrimSuffix(o.Authority, "/")
	o.Poll = cmp.Or(o.Poll, defaultPoll)
	o.Logger = cmp.Or(o.Logger, slog.Default()).With("site", o.Name)
	return nil
}

// endpoints are those of the cloud that the options name.
func (o *Options) endpoints() azcloud.Configuration {
	if o.Endpoint == "" && o.Authority == "" {
		return azcloud.AzurePublic
	}
	for _, known := range []azcloud.Configuration{azcloud.AzurePublic, azcloud.AzureGovernment, azcloud.AzureChina} {
		if o.Authority == "" && known.Services[azcloud.ResourceManager].Endpoint == o.Endpoint {
			return known
		}
	}
	endpoint := cmp.Or(o.Endpoint, azcloud.AzurePublic.Services[azcloud.ResourceManager].Endpoint)
	return azcloud.Configuration{
		ActiveDirectoryAuthorityHost: cmp.Or(o.Authority, azcloud.AzurePublic.ActiveDirectoryAuthorityHost),
		Services: map[azcloud.ServiceName]azcloud.ServiceConfiguration{
			azcloud.ResourceManager: {Endpoint: endpoint, Audience: endpoint},
		},
	}
}
