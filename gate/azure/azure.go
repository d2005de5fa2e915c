package azure

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	azcloud "github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/devtestlabs/armdevtestlabs"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armsubscriptions"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// Kind is the kind of these sites.
const Kind = "azure"

// site is one region of one subscription.
type site struct {
	o     Options
	log   *slog.Logger
	login *login
	base  string // of ARM

	subscriptions *armsubscriptions.Client
	arm           *arm.Client // for what has no client of its own
	*resourceClients
	*machineClients
	*networkClients
	schedules *armdevtestlabs.GlobalSchedulesClient
	public    runtime.Pipeline // without credentials, for the prices
	audience  string           // that tokens are for

	priceMu    sync.Mutex
	lastPrices map[string]price
}

type resourceClients struct {
	groups      *armresources.ResourceGroupsClient
	deployments *armresources.DeploymentsClient
	operations  *armresources.DeploymentOperationsClient
	tags        *armresources.TagsClient
	resources   *armresources.Client
	providers   *armresources.ProvidersClient
}

type machineClients struct {
	machines *armcompute.VirtualMachinesClient
	skus     *armcompute.ResourceSKUsClient
	cores    *armcompute.UsageClient
	images   *armcompute.VirtualMachineImagesClient
}

type networkClients struct {
	interfaces *armnetwork.InterfacesClient
	addresses  *armnetwork.PublicIPAddressesClient
	rules      *armnetwork.SecurityRulesClient
	netUsages  *armnetwork.UsagesClient
}

var (
	_ cloud.Cloud    = (*site)(nil)
	_ cloud.Sited    = (*site)(nil)
	_ cloud.Chooser  = (*site)(nil)
	_ cloud.Resolver = (*site)(nil)
	_ cloud.Lender   = (*site)(nil)
)

// New opens a site. It asks Azure nothing yet: wrong credentials show at the
// first call, or by Check.
func New(o Options) (cloud.Cloud, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &site{o: o, log: o.Logger}
	base := policy.ClientOptions{
		Cloud: o.endpoints(),
		// The SDK waits as Retry-After says while that is short. What takes longer
		// comes back as an error that says so, and the caller decides.
		Retry: policy.RetryOptions{
			MaxRetries: 3, TryTimeout: time.Minute, RetryDelay: o.Poll / 4, MaxRetryDelay: 10 * time.Second,
		},
		Telemetry: policy.TelemetryOptions{ApplicationID: "skyport"},
	}
	if o.HTTP != nil {
		base.Transport = o.HTTP
	}
	manager := base.Cloud.Services[azcloud.ResourceManager]
	s.base, s.audience = manager.Endpoint, manager.Audience
	var err error
	if s.login, err = newLogin(&o, base); err != nil {
		return nil, err
	}
	// Registering providers would need more rights than anything else here does: the check tells of them.
	options := &arm.ClientOptions{ClientOptions: base, DisableRPRegistration: true}
	if err := s.open(options); err != nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "azure site %q: %w", o.Name, err)
	}
	s.public = runtime.NewPipeline("skyport", "v1.0.0", runtime.PipelineOptions{}, &base)
	return s, nil
}

// open makes the clients.
func (s *site) open(options *arm.ClientOptions) error {
	var errs [16]error
	s.resourceClients, s.machineClients, s.networkClients = &resourceClients{}, &machineClients{}, &networkClients{}
	id, who := s.o.Subscription, azcore.TokenCredential(s.login)
	s.subscriptions, errs[0] = armsubscriptions.NewClient(who, options)
	s.arm, errs[1] = arm.NewClient("skyport", "v1.0.0", who, options)
	s.groups, errs[2] = armresources.NewResourceGroupsClient(id, who, options)
	s.deployments, errs[3] = armresources.NewDeploymentsClient(id, who, options)
	s.operations, errs[4] = armresources.NewDeploymentOperationsClient(id, who, options)
	s.tags, errs[5] = armresources.NewTagsClient(id, who, options)
	s.resources, errs[6] = armresources.NewClient(id, who, options)
	s.providers, errs[7] = armresources.NewProvidersClient(id, who, options)
	s.machines, errs[8] = armcompute.NewVirtualMachinesClient(id, who, options)
	s.skus, errs[9] = armcompute.NewResourceSKUsClient(id, who, options)
	s.cores, errs[10] = armcompute.NewUsageClient(id, who, options)
	s.images, errs[11] = armcompute.NewVirtualMachineImagesClient(id, who, options)
	s.interfaces, errs[12] = armnetwork.NewInterfacesClient(id, who, options)
	s.addresses, errs[13] = armnetwork.NewPublicIPAddressesClient(id, who, options)
	s.rules, errs[14] = armnetwork.NewSecurityRulesClient(id, who, options)
	s.netUsages, errs[15] = armnetwork.NewUsagesClient(id, who, options)
	var err error
	s.schedules, err = armdevtestlabs.NewGlobalSchedulesClient(id, who, options)
	return errors.Join(append(errs[:], err)...)
}

// Site describes the site.
func (s *site) Site() skyport.Site {
	server, port := s.base, 443
	if u, err := url.Parse(s.base); err == nil {
		server = u.Hostname()
		if n, err := strconv.Atoi(u.Port()); err == nil {
			port = n
		}
	}
	storages := make([]string, 0, len(s.o.Storages))
	for _, st := range s.o.Storages {
		storages = append(storages, st.Name)
	}
	return skyport.Site{
		ID: gate.StableID(Kind, s.o.Name), Name: s.o.Name, Kind: Kind, Server: server, Port: port, Container: true,
		DefaultFlavor: s.o.DefaultFlavor, DefaultImage: s.o.DefaultImage, Limits: s.o.Limits,
		Region: s.o.Region, Currency: s.o.Currency, Registries: s.o.Registries, Storages: storages,
	}
}

// Sources are who may reach port 22, where the configuration says it.
func (s *site) Sources() cloud.Sources { return cloud.Sources{Fixed: s.o.SSHFrom} }

// Close ends nothing: connections belong to the HTTP client.
func (s *site) Close() error { return nil }

// group is the name of a partition's resource group.
func group(id skyport.PartitionID) string { return "swm-" + string(id) }

// groupID is the scope that tags are written to.
func (s *site) groupID(name string) string {
	return "/subscriptions/" + s.o.Subscription + "/resourceGroups/" + name
}

// collect reads all pages.
func collect[P, T any](ctx context.Context, pager *runtime.Pager[P], items func(P) []*T) ([]*T, error) {
	var all []*T
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err //nolint:wrapcheck // the callers explain what they asked for
		}
		all = append(all, items(page)...)
	}
	return all, nil
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller knows what it was waiting for
	case <-timer.C:
		return nil
	}
}

// slower is the next pause after one of d, when the answer asked for nothing else.
func slower(d time.Duration, answer *http.Response) time.Duration {
	if after := retryAfter(answer); after > 0 {
		return min(after, 3*slowestPoll)
	}
	return max(d, min(d*3/2, slowestPoll))
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func values(tags map[string]*string) map[string]string {
	plain := make(map[string]string, len(tags))
	for name, text := range tags {
		plain[name] = value(text)
	}
	return plain
}

func pointers(tags map[string]string) map[string]*string {
	all := make(map[string]*string, len(tags))
	for name, text := range tags {
		all[name] = &text
	}
	return all
}
