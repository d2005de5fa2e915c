package aws

import (
	"flag"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/gatetest"
)

// long adds what takes minutes: a site that makes trouble all the time.
var long = flag.Bool("long", false, "run the long tests too")

// ubuntu is an image that moto has.
const ubuntu = "ami-1e749f67"

// open makes a site over moto.
func open(t *testing.T, w *wire, change ...func(*Options)) *Cloud {
	t.Helper()
	url, err := moto()
	if err != nil {
		t.Skip("there is no moto:", err)
	}
	o := Options{
		Name: "aws", Region: "us-east-1", AccessKey: "AKIAEXAMPLE", SecretKey: "secret", Endpoint: url, HTTP: &http.Client{Transport: w},
		DefaultFlavor: "c5.large", DefaultImage: "test", Images: map[string]string{"test": ubuntu}, Flavors: []string{"c5.large", "t3.micro", "m6g.large"},
		Poll: 10 * time.Millisecond, ExtraTags: map[string]string{"project": "test"}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c.(*Cloud) //nolint:errcheck,forcetypeassert // what New makes
}

func provide(t *testing.T, c cloud.Cloud) *cloud.Provider {
	t.Helper()
	p, err := cloud.New(cloud.Options{
		Kind: Kind, Clouds: []cloud.Cloud{c}, Poll: time.Second, Retry: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Sources: cloud.Sources{Fixed: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
	})
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

// A provider of AWS over moto keeps the promises of a provider, in a region that
// no other test uses.
func TestConformance(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Logf("seed %d", seed)
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		w := newWire(t)
		own := func(o *Options) { o.Limits.Nodes, o.Region = 6, "us-west-2" }
		c := open(t, w, own)
		p := provide(t, c)
		change := func(f func()) {
			w.mu.Lock()
			defer w.mu.Unlock()
			f()
		}
		fixture := gatetest.Fixture{
			Provider: p, Nodes: 3, Patience: time.Minute,
			Remake: func(t *testing.T) gate.Provider {
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				p = provide(t, open(t, w, own))
				return p
			},
			Left:   func(t *testing.T) []string { return everything(t, c) },
			Refuse: func(_ *testing.T, code skyport.Code) { change(func() { w.refused, w.victim = code, "" }) },
			TakeBack: func(t *testing.T, id skyport.PartitionID) {
				change(func() { w.taken = true })
				there, err := c.survey(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.ec2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: there.current().ids()}); err != nil {
					t.Fatal(err)
				}
			},
			Vanish: func(t *testing.T, id skyport.PartitionID) {
				if err := c.Clear(t.Context(), id, func(string) {}); err != nil {
					t.Fatal(err)
				}
			},
		}
		if *long {
			fixture.Trouble = func(_ *testing.T, on bool) {
				change(func() {
					if w.trouble = nil; on {
						w.trouble = rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // no secret
					}
				})
			}
		}
		return fixture
	})
}

// everything is all that the region has, tagged or not, but what only is remembered.
func everything(t *testing.T, c *Cloud) []string {
	t.Helper()
	var all []string
	note := func(id *string) { all = append(all, sdk.ToString(id)) }
	instances, err := c.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range instances.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != types.InstanceStateNameTerminated {
				note(i.InstanceId)
			}
		}
	}
	volumes, err := c.ec2.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes.Volumes {
		note(v.VolumeId)
	}
	interfaces, err := c.ec2.DescribeNetworkInterfaces(t.Context(), &ec2.DescribeNetworkInterfacesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range interfaces.NetworkInterfaces {
		note(n.NetworkInterfaceId)
	}
	groups, err := c.ec2.DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups.SecurityGroups {
		note(g.GroupId)
	}
	vpcs, err := c.ec2.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vpcs.Vpcs {
		note(v.VpcId)
	}
	subnets, err := c.ec2.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range subnets.Subnets {
		note(s.SubnetId)
	}
	gateways, err := c.ec2.DescribeInternetGateways(t.Context(), &ec2.DescribeInternetGatewaysInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range gateways.InternetGateways {
		note(g.InternetGatewayId)
	}
	placements, err := c.ec2.DescribePlacementGroups(t.Context(), &ec2.DescribePlacementGroupsInput{Filters: []types.Filter{
		{Name: sdk.String("tag-key"), Values: []string{cloud.TagPartition}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range placements.PlacementGroups {
		note(p.GroupId)
	}
	return all
}
