package aws

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Flavors have sizes, GPUs, architectures and prices; without the right to read
// prices they say that they have none.
func TestFlavors(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := open(t, w, func(o *Options) { o.Flavors = []string{"c5.large", "m6g.large", "g4dn.12xlarge", "t3.micro"} })
	all, err := c.Flavors(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("%d flavors: %+v, %v", len(all), all, err)
	}
	large, gpus, arm := all[0], all[1], all[2]
	if large.Name != "c5.large" || large.CPUs != 2 || large.Memory != 4<<30 || large.Price != 0.085 || large.SpotPrice == 0 || large.Unpriced || large.Arch != amd64 ||
		large.Storage != 64<<30 {
		t.Errorf("%+v", large)
	}
	if arm.Arch != arm64 || !arm.Unpriced || arm.Price != 0 {
		t.Errorf("%+v", arm)
	}
	if gpus.GPUs != 4 || gpus.GPUModel != "T4" {
		t.Errorf("%+v", gpus)
	}
	if c.DefaultImage(gpus) != "" {
		t.Error("the configured image gives way to another")
	}
	free := open(t, w, func(o *Options) { o.DefaultImage = "" })
	if free.DefaultImage(gpus) != "ubuntu-22.04-nvidia" || free.DefaultImage(large) != "" || free.Site().DefaultImage != "ubuntu-24.04" {
		t.Error("the default image does not follow the flavor")
	}
	w.fail("AWSPriceListService.GetProducts", fault{code: "AccessDeniedException", message: "User: arn:aws:iam::1:user/x is not authorized to perform: pricing:GetProducts"})
	all, err = c.Flavors(t.Context())
	if err != nil || slices.ContainsFunc(all, func(f skyport.Flavor) bool { return !f.Unpriced }) {
		t.Errorf("%+v, %v", all, err)
	}
	w.fail("AWSPriceListService.GetProducts", slices.Repeat([]fault{{code: "ThrottlingException", message: "Rate exceeded"}}, 3)...)
	if _, err := c.Flavors(t.Context()); skyport.CodeOf(err) != skyport.CodeThrottled {
		t.Errorf("throttled: %v", err)
	}
}

// Images are found by id, by parameter for each architecture, and by any id.
func TestImages(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := open(t, w, func(o *Options) {
		o.Images = map[string]string{"test": ubuntu, "gone": "ami-0123456789abcdef0", "golden": "ssm:/golden/{machine}", "one": "ssm:/golden/{arch}"}
	})
	for path, id := range map[string]string{"/golden/x86_64": ubuntu, "/golden/arm64": "ami-0e9271c829888680e"} {
		if _, err := c.ssm.PutParameter(t.Context(), &ssm.PutParameterInput{Name: &path, Value: sdk.String(id), Type: ssmtypes.ParameterTypeString, Overwrite: sdk.Bool(true)}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	arch := map[string]string{}
	for _, i := range all {
		arch[i.Name] = i.Name + ":" + i.Arch
	}
	if arch["test"] != "test:amd64" || arch["golden"] != "golden:" || arch["one"] != "one:arm64" || arch["gone"] != "" {
		t.Errorf("images are %v", arch)
	}
	for name, want := range map[string]string{amd64: ubuntu, arm64: "ami-0e9271c829888680e"} {
		if i, err := c.resolve(t.Context(), "golden", name); err != nil || i.id != want || i.device == "" {
			t.Errorf("golden for %s is %+v, %v", name, i, err)
		}
	}
	if i, err := c.ResolveImage(t.Context(), ubuntu); err != nil || i.Name != ubuntu || i.Arch != amd64 {
		t.Errorf("by its id: %+v, %v", i, err)
	}
	for _, name := range []string{"ami-0123456789abcdef0", "no-such-image", "one", "../evil"} {
		if _, err := c.resolve(t.Context(), name, amd64); skyport.CodeOf(err) != skyport.CodeUnknownImage || !errors.Is(err, gate.ErrPermanent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.resolve(t.Context(), "test", arm64); skyport.CodeOf(err) != skyport.CodeUnknownImage {
		t.Errorf("of another architecture: %v", err)
	}
}

// Check says what works, what does not, and the command that mends it; it makes nothing.
func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := open(t, w)
	w.fail("RunInstances", fault{status: 403, code: "UnauthorizedOperation", message: "You are not authorized to perform this operation. " +
		"User: arn:aws:iam::123456789012:user/gate is not authorized to perform: ec2:RunInstances on resource: x"})
	findings, err := c.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	texts := ""
	for _, f := range findings {
		texts += f.Subject + " " + string(f.Level) + ": " + f.Text + " | " + f.Fix + "\n"
		if f.Site != "aws" || f.Level == gate.LevelFailure && f.Fix == "" {
			t.Errorf("finding %+v", f)
		}
	}
	for _, want := range []string{
		"credentials ok: arn:aws", "permissions ok: may list", "permissions ok: ec2:CreateVpc is allowed", "permissions ok: ec2:CreatePlacementGroup is allowed",
		"permissions failure:", "aws iam put-user-policy --user-name gate", "image ok: test is " + ubuntu, "flavor ok: c5.large is offered in us-east-1",
		"quota warning:", "prices ok:",
	} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is missing in\n%s", want, texts)
		}
	}
	if strings.Contains(texts, "AKIAEXAMPLE") || strings.Contains(texts, "secret") {
		t.Errorf("a secret is told:\n%s", texts)
	}
	for _, action := range w.of("") {
		if strings.HasPrefix(action.action, "Create") && action.form.Get("DryRun") != "true" || action.action == "CreateTags" {
			t.Errorf("check calls %s in earnest", action.action)
		}
	}
	w.fail("GetCallerIdentity", fault{status: 403, code: "ExpiredToken", message: "The security token included in the request is expired"})
	findings, err = c.Check(t.Context())
	if err != nil || len(findings) != 1 || findings[0].Level != gate.LevelFailure || !strings.Contains(findings[0].Fix, "aws sso login") {
		t.Errorf("expired: %+v, %v", findings, err)
	}
}

// A file of keys is read again when it changes.
func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(profile, key string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("["+profile+"]\naws_access_key_id = "+key+"\naws_secret_access_key = s\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := Options{CredentialsFile: file, Profile: "sky"}.credentials()
	if _, err := k.Retrieve(t.Context()); err == nil {
		t.Error("there are credentials without a file")
	}
	for _, key := range []string{"ONE", "TWO"} {
		write("sky", key)
		got, err := k.Retrieve(t.Context())
		if err != nil || got.AccessKeyID != key || !got.CanExpire || time.Until(got.Expires) > notice+freshness {
			t.Errorf("%s: %v, %v", key, got.AccessKeyID, err)
		}
	}
	write("other", "THREE")
	if _, err := k.Retrieve(t.Context()); err == nil || strings.Contains(err.Error(), "THREE") {
		t.Errorf("a profile that is not there: %v", err)
	}
}

// Credentials that cannot be renewed do until they end; none at all is a
// failure that says what to do.
func TestRenewal(t *testing.T) {
	t.Parallel()
	c := open(t, newWire(t))
	answer := sdk.Credentials{AccessKeyID: "A", SecretAccessKey: "S", CanExpire: true, Expires: time.Now().Add(time.Minute - notice), Source: "SSOProvider"}
	var failed error
	r := &renewer{site: "aws", log: c.log, chain: sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) { return answer, failed })}
	first, err := r.Retrieve(t.Context())
	if err != nil || time.Until(first.Expires) < 0 {
		t.Fatalf("%v, %v", first.Expires, err)
	}
	if until, renewed := lasting(first); renewed || until.IsZero() {
		t.Errorf("a login lasts until %v, renewed %v", until, renewed)
	}
	failed = errors.New("the login has ended")
	if again, err := r.Retrieve(t.Context()); err != nil || again.AccessKeyID != "A" || r.told.IsZero() {
		t.Errorf("%v, %v, told at %v", again.AccessKeyID, err, r.told)
	}
	r.last.Expires = time.Now().Add(-time.Second)
	_, err = r.Retrieve(t.Context())
	if skyport.CodeOf(err) != skyport.CodeCredentials || !errors.Is(err, gate.ErrPermanent) || !strings.Contains(skyport.HintOf(err), "sso login") {
		t.Errorf("got %v", err)
	}
}

// Options that cannot work are refused.
func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"no name":    {Region: "eu-west-1"},
		"half a key": {Name: "aws", Region: "eu-west-1", AccessKey: "A"},
	} {
		if _, err := New(o); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := New(Options{Name: "china", Region: "cn-north-1", AccessKey: "A", SecretKey: "S"})
	if err != nil || c.Site().Currency != "CNY" || c.Site().Region != "cn-north-1" {
		t.Errorf("%+v, %v", c, err)
	}
}
