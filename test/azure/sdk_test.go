package azuretest_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"go.uber.org/goleak"

	azuretest "github.com/openworkload/skyport/test/azure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sdk is the real SDK at an emulator.
type sdk struct {
	e       *azuretest.Emulator
	options azcore.ClientOptions
	arm     *arm.ClientOptions
	cred    azcore.TokenCredential

	groups      *armresources.ResourceGroupsClient
	resources   *armresources.Client
	deployments *armresources.DeploymentsClient
	operations  *armresources.DeploymentOperationsClient
	vms         *armcompute.VirtualMachinesClient
	nics        *armnetwork.InterfacesClient
	nsgs        *armnetwork.SecurityGroupsClient
	rules       *armnetwork.SecurityRulesClient
}

func start(t *testing.T, o azuretest.Options) *sdk {
	t.Helper()
	if o.RetryAfter == 0 {
		o.RetryAfter = 10 * time.Millisecond
	}
	e, err := azuretest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return connect(t, e)
}

func connect(t *testing.T, e *azuretest.Emulator) *sdk {
	t.Helper()
	s := &sdk{e: e, options: azcore.ClientOptions{
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: e.Authority(),
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: e.URL(), Audience: e.URL()}},
		},
		Transport: e.Client(),
		Retry:     policy.RetryOptions{MaxRetries: 5, RetryDelay: time.Millisecond, MaxRetryDelay: 5 * time.Millisecond},
	}}
	var err error
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s.cred, err = azidentity.NewClientSecretCredential(e.Tenant(), e.ClientID(), e.ClientSecret(),
		&azidentity.ClientSecretCredentialOptions{ClientOptions: s.options, DisableInstanceDiscovery: true})
	fatal(err)
	s.arm = &arm.ClientOptions{ClientOptions: s.options}
	f, err := armresources.NewClientFactory(e.Subscription(), s.cred, s.arm)
	fatal(err)
	s.groups, s.resources, s.deployments, s.operations = f.NewResourceGroupsClient(), f.NewClient(), f.NewDeploymentsClient(), f.NewDeploymentOperationsClient()
	c, err := armcompute.NewClientFactory(e.Subscription(), s.cred, s.arm)
	fatal(err)
	s.vms = c.NewVirtualMachinesClient()
	n, err := armnetwork.NewClientFactory(e.Subscription(), s.cred, s.arm)
	fatal(err)
	s.nics, s.nsgs, s.rules = n.NewInterfacesClient(), n.NewSecurityGroupsClient(), n.NewSecurityRulesClient()
	return s
}

func (s *sdk) group(ctx context.Context, name string) error {
	_, err := s.groups.CreateOrUpdate(ctx, name, armresources.ResourceGroup{Location: to.Ptr("westeurope"), Tags: map[string]*string{"skyport-owner": to.Ptr("me")}}, nil)
	return err
}

func (s *sdk) drop(ctx context.Context, name string) error {
	p, err := s.groups.BeginDelete(ctx, name, nil)
	if err != nil {
		return err
	}
	_, err = p.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Second})
	return err
}

// cluster are the parameters of testdata/cluster.json.
func cluster(prefix string, nodes int, more map[string]any) map[string]any {
	var data []any
	for i := range nodes {
		data = append(data, base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "#cloud-config\n# node %d\n", i)))
	}
	p := map[string]any{
		"prefix": prefix, "nodes": nodes, "key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHBY secret", "userData": map[string]any{"nodes": data},
		"tags": map[string]any{"skyport-owner": "me", "skyport-partition": prefix},
	}
	for k, v := range more {
		p[k] = v
	}
	out := map[string]any{}
	for k, v := range p {
		out[k] = map[string]any{"value": v}
	}
	return out
}

func (s *sdk) deploy(ctx context.Context, group string, template any, parameters map[string]any) (armresources.DeploymentExtended, error) {
	p, err := s.deployments.BeginCreateOrUpdate(ctx, group, group, armresources.Deployment{Properties: &armresources.DeploymentProperties{
		Mode: to.Ptr(armresources.DeploymentModeIncremental), Template: template, Parameters: parameters,
	}}, nil)
	if err != nil {
		return armresources.DeploymentExtended{}, err
	}
	r, err := p.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Second})
	return r.DeploymentExtended, err
}

func clusterTemplate(t testing.TB) any {
	t.Helper()
	text, err := os.ReadFile("testdata/cluster.json")
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// code is that of an error of the SDK.
func code(err error) string {
	var r *azcore.ResponseError
	if errors.As(err, &r) {
		return r.ErrorCode
	}
	return fmt.Sprint(err)
}
