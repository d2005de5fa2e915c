package aws

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// planned is a plan of n nodes as the provider makes it.
func planned(n int, change ...func(*cloud.Plan)) cloud.Plan {
	id := skyport.NewPartitionID()
	spec := gate.PartitionSpec{
		ID: id, Owner: "owner-" + id.Short(), Site: "aws", Flavor: "c5.large", Image: "test", Nodes: skyport.NodeNames(id, n),
		Lease: time.Now().Add(time.Hour).UTC().Truncate(time.Second), Job: skyport.JobID("6f0b6a1c-3d27-4f57-9d5c-0f3a8f3e7a11"), User: "ada",
	}
	for _, node := range spec.Nodes {
		spec.UserData = append(spec.UserData, "#cloud-config\nhostname: "+node+"\n")
	}
	plan := cloud.Plan{
		PartitionSpec: spec, Name: "swm-" + string(id), NodeImage: skyport.Image{Name: "test"}, NodeFlavor: skyport.Flavor{Name: "c5.large", Arch: "amd64"},
		Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/64")},
	}
	for _, f := range change {
		f(&plan)
	}
	plan.Tags = cloud.TagsOf(plan.PartitionSpec)
	return plan
}

// mk makes a partition as the provider does: a passing error is tried again.
func mk(t *testing.T, c *Cloud, plan cloud.Plan) cloud.Found {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Clear(t.Context(), plan.ID, func(string) {}); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	for try := 0; ; try++ {
		err := c.Make(t.Context(), plan, func(text string) { t.Log(text) })
		if err == nil {
			break
		}
		if errors.Is(err, gate.ErrPermanent) || try == 5 {
			t.Fatal(err)
		}
		t.Log("again:", err)
	}
	return find(t, c, plan.ID)
}

func find(t *testing.T, c *Cloud, id skyport.PartitionID) cloud.Found {
	t.Helper()
	all, err := c.Find(t.Context(), id)
	if err != nil || len(all) != 1 {
		t.Fatalf("found %d partitions: %v", len(all), err)
	}
	return all[0]
}

func wipe(t *testing.T, c *Cloud, id skyport.PartitionID) {
	t.Helper()
	if err := c.Clear(t.Context(), id, func(text string) { t.Log(text) }); err != nil {
		t.Fatal(err)
	}
	if all, err := c.Find(t.Context(), id); err != nil || len(all) != 0 {
		t.Fatalf("left: %+v, %v", all, err)
	}
}

// A cluster of spot nodes: what each call asks for, and what is there.
func TestLife(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := open(t, w)
	plan := planned(3, func(p *cloud.Plan) { p.Spot = true })
	f := mk(t, c, plan)

	if !f.Made || f.Failure != nil || len(f.Nodes) != 3 || f.Created.IsZero() || f.Tags.Owner != plan.Owner || !f.Tags.Lease.Equal(plan.Lease) {
		t.Errorf("found %+v", f)
	}
	for i, n := range f.Nodes {
		if n.Name != plan.Nodes[i] || (n.Role == skyport.RoleMain) != (i == 0) || n.Address == "" || !strings.HasPrefix(n.Endpoint, "ssh://") {
			t.Errorf("node %d: %+v", i, n)
		}
	}
	checkTags(t, w, plan)
	runs := w.of("RunInstances")
	if len(runs) != 3 {
		t.Fatalf("%d calls for 3 nodes", len(runs))
	}
	tokens := map[string]bool{}
	for _, run := range runs {
		i := slices.Index(plan.Nodes, tagsOf(run.form, "TagSpecification.1.Tag")["Name"])
		tokens[run.form.Get("ClientToken")] = true
		public := "false"
		if i == 0 {
			public = "true"
		}
		for key, want := range map[string]string{
			"NetworkInterface.1.AssociatePublicIpAddress": public, "NetworkInterface.1.DeleteOnTermination": "true", "KeyName": "",
			"InstanceInitiatedShutdownBehavior": "terminate", "MetadataOptions.HttpTokens": "required", "MinCount": "1", "MaxCount": "1",
			"BlockDeviceMapping.1.Ebs.VolumeType": "gp3", "BlockDeviceMapping.1.Ebs.VolumeSize": "64", "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
			"InstanceMarketOptions.MarketType": "spot", "InstanceMarketOptions.SpotOptions.SpotInstanceType": "one-time",
			"InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior": "terminate", "Placement.GroupName": plan.Name,
		} {
			if got := run.form.Get(key); got != want {
				t.Errorf("node %d: %s is %q, want %q", i, key, got, want)
			}
		}
		if got := unpack(t, run.form.Get("UserData")); got != plan.UserData[i] {
			t.Errorf("node %d boots with %q, want %q", i, got, plan.UserData[i])
		}
	}
	if len(tokens) != 3 {
		t.Errorf("%d tokens for 3 nodes", len(tokens))
	}
	checkDoors(t, c, plan.ID, "192.0.2.7/32", "2001:db8::/64")

	// Made once more, nothing happens.
	if err := c.Make(t.Context(), plan, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if again := w.of("RunInstances"); len(again) != 3 {
		t.Errorf("%d calls after making again", len(again))
	}
	if err := c.Admit(t.Context(), plan.ID, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), plan.Sources[1]}); err != nil {
		t.Fatal(err)
	}
	checkDoors(t, c, plan.ID, "198.51.100.0/24", "2001:db8::/64")

	// The lease moves and the mark is set on everything, by a call each.
	before, until := len(w.of("CreateTags")), plan.Lease.Add(-time.Minute)
	if err := c.Extend(t.Context(), plan.ID, until); err != nil {
		t.Fatal(err)
	}
	if err := c.Condemn(t.Context(), plan.ID); err != nil {
		t.Fatal(err)
	}
	if calls := len(w.of("CreateTags")) - before; calls != 2 {
		t.Errorf("%d calls to extend and condemn", calls)
	}
	if f := find(t, c, plan.ID); !f.Tags.Lease.Equal(until) || !f.Tags.Condemned {
		t.Errorf("tags are %+v", f.Tags)
	}
	wipe(t, c, plan.ID)
	if err := c.Extend(t.Context(), plan.ID, until); !errors.Is(err, gate.ErrNotFound) {
		t.Errorf("extending what is gone: %v", err)
	}
	checkPolicy(t, w)
}

// checkTags: every call that makes something names the tags of all that it makes.
func checkTags(t *testing.T, w *wire, plan cloud.Plan) {
	t.Helper()
	made := map[string]bool{}
	for _, c := range w.of("") {
		if !strings.HasPrefix(c.action, "Create") && c.action != "RunInstances" || c.action == "CreateTags" || c.action == "CreateRoute" {
			continue
		}
		if !c.form.Has("TagSpecification.1.ResourceType") {
			t.Errorf("%s names no tags: %v", c.action, c.form)
		}
		for i := 1; c.form.Has(key(i, "ResourceType")); i++ {
			made[c.form.Get(key(i, "ResourceType"))] = true
			tags := tagsOf(c.form, key(i, "Tag"))
			for name, want := range plan.Tags.Map() {
				if tags[name] != want {
					t.Errorf("%s: tag %s is %q, want %q", c.action, name, tags[name], want)
				}
			}
			if tags["project"] != "test" || tags["Name"] == "" {
				t.Errorf("%s: tags are %v", c.action, tags)
			}
		}
	}
	for _, kind := range []string{
		"vpc", "subnet", "internet-gateway", "security-group", "placement-group", "instance", "volume", "network-interface", "spot-instances-request",
	} {
		if !made[kind] {
			t.Errorf("no %s was made with tags", kind)
		}
	}
}

func key(i int, what string) string { return "TagSpecification." + string(rune('0'+i)) + "." + what }

func unpack(t *testing.T, text string) string {
	t.Helper()
	packed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

// checkDoors: port 22 is open to these sources, all ports to the nodes, and nothing else to anybody.
func checkDoors(t *testing.T, c *Cloud, id skyport.PartitionID, want ...string) {
	t.Helper()
	there, err := c.survey(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	group := there.of(types.ResourceTypeSecurityGroup)[0]
	var open []string
	for _, r := range group.rules {
		for _, from := range r.IpRanges {
			open = append(open, *from.CidrIp)
		}
		for _, from := range r.Ipv6Ranges {
			open = append(open, *from.CidrIpv6)
		}
		if len(r.IpRanges)+len(r.Ipv6Ranges) > 0 && (*r.FromPort != 22 || *r.ToPort != 22 || *r.IpProtocol != "tcp") {
			t.Errorf("open is %+v", r)
		}
		for _, pair := range r.UserIdGroupPairs {
			if *pair.GroupId != group.id {
				t.Errorf("open to group %s", *pair.GroupId)
			}
		}
	}
	slices.Sort(open)
	if !slices.Equal(open, want) {
		t.Errorf("open to %v, want %v", open, want)
	}
}

// checkPolicy: the policy that people are given allows all that was asked for.
func checkPolicy(t *testing.T, w *wire) {
	t.Helper()
	text, err := os.ReadFile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct{ Statement []struct{ Action []string } }
	if err := json.Unmarshal(text, &policy); err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for _, s := range policy.Statement {
		for _, a := range s.Action {
			allowed[a] = true
		}
	}
	for _, c := range w.of("") {
		if !strings.Contains(c.action, ".") && !allowed["ec2:"+c.action] && !allowed["sts:"+c.action] {
			t.Errorf("policy.json does not allow %s", c.action)
		}
	}
}

// Answers that are lost after the work was done, and calls that fail in
// between, leave neither double nodes nor anything behind.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := open(t, w)
	lost, broken := fault{status: 500, code: "InternalError", after: true}, fault{status: 503, code: "Unavailable"}
	for _, action := range []string{"CreateVpc", "CreateSecurityGroup", "CreateInternetGateway", "CreateSubnet", "AuthorizeSecurityGroupIngress", "RunInstances"} {
		w.fail(action, lost, broken)
	}
	plan := planned(3)
	f := mk(t, c, plan)
	instances := 0
	for _, r := range f.Resources {
		if r.Kind == "instance" {
			instances++
		}
	}
	if !f.Made || len(f.Nodes) != 3 || instances != 3 {
		t.Errorf("%d instances: %+v", instances, f)
	}
	for _, action := range []string{"TerminateInstances", "DeleteSecurityGroup", "DetachInternetGateway", "DeleteInternetGateway", "DeleteSubnet", "DeleteVpc"} {
		w.fail(action, lost, broken)
	}
	w.fail("DeleteVpc", fault{code: "DependencyViolation", message: "it has dependencies"})
	wipe(t, c, plan.ID)
}

// A zone that has no room is left for the next, with all nodes; when none has,
// that is the reason.
func TestZones(t *testing.T) {
	t.Parallel()
	full := fault{status: 500, code: "InsufficientInstanceCapacity", message: "There is not enough capacity."}
	t.Run("next", func(t *testing.T) {
		t.Parallel()
		w := newWire(t)
		c := open(t, w)
		plan := planned(2)
		second := full
		second.when = func(form url.Values) bool { return tagsOf(form, "TagSpecification.1.Tag")["skyport-node"] == "1" }
		w.fail("RunInstances", second)
		f := mk(t, c, plan)
		there, err := c.survey(t.Context(), plan.ID)
		if err != nil {
			t.Fatal(err)
		}
		zones := map[string]bool{}
		for _, n := range there.current() {
			zones[*n.instance.Placement.AvailabilityZone] = true
		}
		if !f.Made || f.Failure != nil || len(zones) != 1 || len(there.of(types.ResourceTypeSubnet)) != 2 {
			t.Errorf("in zones %v: %+v", zones, f)
		}
		wipe(t, c, plan.ID)
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		w := newWire(t)
		c := open(t, w)
		plan := planned(1)
		w.fail("RunInstances", slices.Repeat([]fault{full}, 20)...)
		err := c.Make(t.Context(), plan, func(string) {})
		if skyport.CodeOf(err) != skyport.CodeNoCapacity || !errors.Is(err, gate.ErrPermanent) {
			t.Errorf("got %v", err)
		}
		wipe(t, c, plan.ID)
	})
	t.Run("quota", func(t *testing.T) {
		t.Parallel()
		w := newWire(t)
		c := open(t, w)
		plan := planned(1)
		w.fail("RunInstances", fault{code: "VcpuLimitExceeded", message: "You have requested more vCPU capacity than your current vCPU limit of 0 allows."})
		err := c.Make(t.Context(), plan, func(string) {})
		if skyport.CodeOf(err) != skyport.CodeQuota || !strings.Contains(skyport.HintOf(err), "L-1216C47A") || len(w.of("RunInstances")) != 1 {
			t.Errorf("got %v, %s, after %d calls", err, skyport.HintOf(err), len(w.of("RunInstances")))
		}
		wipe(t, c, plan.ID)
	})
}

// A node that somebody ends is a failure of its partition; under the same id a
// later creation is not disturbed by it.
func TestLostNode(t *testing.T) {
	t.Parallel()
	c := open(t, newWire(t))
	plan := planned(2)
	mk(t, c, plan)
	there, err := c.survey(t.Context(), plan.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ec2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: there.current().ids()[1:]}); err != nil {
		t.Fatal(err)
	}
	f := find(t, c, plan.ID)
	if f.Made || skyport.CodeOf(f.Failure) != skyport.CodeUnavailable || !strings.Contains(f.Failure.Error(), plan.Nodes[1]) {
		t.Errorf("found %+v", f)
	}
	wipe(t, c, plan.ID)
	if f := mk(t, c, plan); !f.Made || f.Failure != nil {
		t.Errorf("made again: %+v", f)
	}
	wipe(t, c, plan.ID)
}

// In a configured VPC only what is ours is made and removed.
func TestConfiguredNetwork(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	first := open(t, w)
	block := "10.9.0.0/16"
	vpc, err := first.ec2.CreateVpc(t.Context(), &ec2.CreateVpcInput{CidrBlock: &block})
	if err != nil {
		t.Fatal(err)
	}
	subnet, err := first.ec2.CreateSubnet(t.Context(), &ec2.CreateSubnetInput{VpcId: vpc.Vpc.VpcId, CidrBlock: &block})
	if err != nil {
		t.Fatal(err)
	}
	before := len(w.of("CreateVpc")) + len(w.of("CreateSubnet"))
	for name, change := range map[string]func(*Options){
		"vpc":    func(o *Options) { o.VPC = *vpc.Vpc.VpcId },
		"subnet": func(o *Options) { o.Subnet = *subnet.Subnet.SubnetId },
	} {
		c := open(t, w, change)
		plan := planned(1)
		if f := mk(t, c, plan); !f.Made {
			t.Errorf("%s: found %+v", name, f)
		}
		wipe(t, c, plan.ID)
	}
	if n := len(w.of("CreateVpc")) + len(w.of("CreateSubnet")); n != before {
		t.Errorf("%d networks were made", n-before)
	}
	if out, err := first.ec2.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{SubnetIds: []string{*subnet.Subnet.SubnetId}}); err != nil || len(out.Subnets) != 1 {
		t.Errorf("the configured subnet is gone: %v", err)
	}
	wrong := open(t, w, func(o *Options) { o.Subnet = "subnet-0123456789abcdef0" })
	if err := wrong.Make(t.Context(), planned(1), func(string) {}); !errors.Is(err, gate.ErrPermanent) || !strings.Contains(skyport.HintOf(err), "describe-subnets") {
		t.Errorf("a wrong subnet: %v", err)
	}
}

// User data that EC2 would not take is refused before anything is made.
func TestUserDataLimit(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 16<<10)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	w := newWire(t)
	c := open(t, w)
	plan := planned(1, func(p *cloud.Plan) { p.UserData[0] = hex.EncodeToString(noise) })
	if err := c.Make(t.Context(), plan, func(string) {}); !errors.Is(err, gate.ErrPermanent) || len(w.of("")) != 0 {
		t.Errorf("got %v after %d calls", err, len(w.of("")))
	}
}
