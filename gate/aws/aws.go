package aws

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/pricing"
	"github.com/aws/aws-sdk-go-v2/service/servicequotas"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// Kind is the kind of these sites.
const Kind = "aws"

// Options describe one site. Name and Region are needed, all else may be left out.
type Options struct {
	Name   string
	Region string // "eu-central-1"; empty: what the environment or profile says

	// Profile of ~/.aws, or keys, or a file as ~/.aws/credentials that is read
	// again when it changes; none of them: the SDK's own chain (environment,
	// shared files, single sign-on, the role of the machine).
	Profile         string
	AccessKey       string
	SecretKey       string
	SessionToken    string
	CredentialsFile string

	DefaultFlavor string
	DefaultImage  string            // empty: ubuntu-24.04
	Flavors       []string          // patterns as [path.Match] has them; empty: those of [DefaultFlavors]
	Images        map[string]string // name to "ami-…" or "ssm:/path", where {arch} and {machine} stand for the architecture
	Limits        skyport.Limits
	SSHFrom       []netip.Prefix
	Disk          skyport.Bytes // of the system; 0: 64 GiB. Never less than the image's
	ExtraTags     map[string]string

	VPC    string // empty: one is made for each partition
	Subnet string // empty: one is made, or any of the VPC's is taken

	Endpoint    string // of all services; empty: Amazon's
	PriceRegion string // whose Price List API is asked; empty: us-east-1

	Poll   time.Duration // between looks at what is being made or removed; 0: 2 s
	Logger *slog.Logger
	HTTP   *http.Client
}

// Cloud is one site.
type Cloud struct {
	o      Options
	chosen bool // the configuration names the default image
	log    *slog.Logger
	config sdk.Config
	ec2    *ec2.Client
	prices *pricing.Client
	ssm    *ssm.Client
	sts    *sts.Client
	quotas *servicequotas.Client
}

var (
	_ cloud.Cloud    = (*Cloud)(nil)
	_ cloud.Sited    = (*Cloud)(nil)
	_ cloud.Resolver = (*Cloud)(nil)
	_ cloud.Chooser  = (*Cloud)(nil)
)

// New makes a site. It asks nothing of Amazon yet.
func New(o Options) (cloud.Cloud, error) {
	if o.Name == "" {
		return nil, skyport.Errorf(skyport.CodeInvalid, "an aws site has no name")
	}
	if (o.AccessKey == "") != (o.SecretKey == "") {
		return nil, skyport.Errorf(skyport.CodeInvalid, "site %s: access_key and secret_key go together", o.Name)
	}
	chosen := o.DefaultImage != ""
	o.DefaultImage = cmp.Or(o.DefaultImage, "ubuntu-24.04")
	o.PriceRegion = cmp.Or(o.PriceRegion, "us-east-1")
	o.Poll = cmp.Or(o.Poll, 2*time.Second)
	c := &Cloud{o: o, chosen: chosen, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)).With("site", o.Name)}
	load := []func(*config.LoadOptions) error{
		// Few tries, soon over: the provider above knows better when to come again.
		config.WithRetryer(func() sdk.Retryer {
			return retry.NewStandard(func(s *retry.StandardOptions) {
				s.MaxAttempts, s.MaxBackoff = 3, 2*time.Second
				s.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(tryAgain)}, s.Retryables...)
			})
		}),
		config.WithCredentialsCacheOptions(func(cache *sdk.CredentialsCacheOptions) { cache.ExpiryWindow = notice }),
	}
	if o.Profile != "" && o.CredentialsFile == "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if own := o.credentials(); own != nil {
		load = append(load, config.WithCredentialsProvider(own))
	}
	// Loading reads files and the environment; only credentials that are asked for later go to the network.
	var err error
	if c.config, err = config.LoadDefaultConfig(context.Background(), load...); err != nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "site %s: read the configuration of AWS: %w", o.Name, err)
	}
	if o.HTTP != nil { // not by an option of the load: that fails where AWS_CA_BUNDLE is set
		c.config.HTTPClient = o.HTTP
	}
	if c.config.Region == "" {
		return nil, skyport.Errorf(skyport.CodeInvalid, "site %s has no region", o.Name).WithHint("say region: eu-central-1, for instance")
	}
	c.o.Region = c.config.Region
	if c.o.PriceRegion == "" { // the price list is told in few regions, China's in its own
		c.o.PriceRegion = map[bool]string{false: "us-east-1", true: "cn-northwest-1"}[c.currency() == "CNY"]
	}
	if o.Endpoint != "" {
		c.config.BaseEndpoint = sdk.String(o.Endpoint)
	}
	c.config.Credentials = &renewer{chain: c.config.Credentials, site: o.Name, log: c.log}
	c.ec2, c.ssm, c.sts = ec2.NewFromConfig(c.config), ssm.NewFromConfig(c.config), sts.NewFromConfig(c.config)
	c.quotas = servicequotas.NewFromConfig(c.config)
	c.prices = pricing.NewFromConfig(c.config, func(p *pricing.Options) { p.Region = c.o.PriceRegion })
	return c, nil
}

// tryAgain keeps the SDK from trying again what has no room: EC2 says so as a
// fault of its own, and there are other zones.
func tryAgain(err error) sdk.Ternary {
	if capacityCodes[code(err)] {
		return sdk.FalseTernary
	}
	return sdk.UnknownTernary
}

// Site describes the site.
func (c *Cloud) Site() skyport.Site {
	return skyport.Site{
		ID: gate.StableID(Kind, c.o.Name), Name: c.o.Name, Kind: Kind, Server: "ec2." + c.o.Region + ".amazonaws.com", Port: 443, Container: true,
		DefaultFlavor: c.o.DefaultFlavor, DefaultImage: c.o.DefaultImage, Limits: c.o.Limits, Region: c.o.Region, Currency: c.currency(),
	}
}

// Sources are who may reach port 22, when the configuration says so.
func (c *Cloud) Sources() cloud.Sources { return cloud.Sources{Fixed: c.o.SSHFrom} }

// Close drops idle connections.
func (c *Cloud) Close() error {
	if client, ok := c.config.HTTPClient.(interface{ CloseIdleConnections() }); ok && c.o.HTTP == nil {
		client.CloseIdleConnections()
	}
	return nil
}

// pause waits between two looks.
func (c *Cloud) pause(ctx context.Context) error {
	t := time.NewTimer(c.o.Poll)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("site %s: %w", c.o.Name, context.Cause(ctx))
	}
}
