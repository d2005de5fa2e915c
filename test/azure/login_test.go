package azuretest_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	azuretest "github.com/openworkload/skyport/test/azure"
)

func certificate(t *testing.T) (*x509.Certificate, crypto.PrivateKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	draft := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, draft, draft, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

// Secrets and certificates are checked, and refusals say what Entra says.
func TestLogin(t *testing.T) {
	t.Parallel()
	mine, key := certificate(t)
	other, otherKey := certificate(t)
	s := start(t, azuretest.Options{Certificates: []*x509.Certificate{mine}})
	list := func(cred azcore.TokenCredential, err error) error {
		if err != nil {
			return err
		}
		groups, err := armresources.NewResourceGroupsClient(s.e.Subscription(), cred, &arm.ClientOptions{ClientOptions: s.options})
		if err != nil {
			return err
		}
		_, err = groups.NewListPager(nil).NextPage(t.Context())
		return err
	}
	secret := &azidentity.ClientSecretCredentialOptions{ClientOptions: s.options, DisableInstanceDiscovery: true}
	cert := &azidentity.ClientCertificateCredentialOptions{ClientOptions: s.options, DisableInstanceDiscovery: true}
	for _, test := range []struct{ name, want string }{{"right", ""}, {"secret", "AADSTS7000215"}, {"client", "AADSTS700016"}, {"tenant", "AADSTS90002"}, {"certificate", ""}, {"wrong certificate", "AADSTS700027"}} {
		tenant, client, word := s.e.Tenant(), s.e.ClientID(), s.e.ClientSecret()
		var err error
		switch test.name {
		case "secret":
			word = "guess"
		case "client":
			client = azuretest.DefaultTenant
		case "tenant":
			tenant = azuretest.DefaultClientID
		}
		switch test.name {
		case "certificate":
			c, bad := azidentity.NewClientCertificateCredential(tenant, client, []*x509.Certificate{mine}, key, cert)
			err = list(c, bad)
		case "wrong certificate":
			c, bad := azidentity.NewClientCertificateCredential(tenant, client, []*x509.Certificate{other}, otherKey, cert)
			err = list(c, bad)
		default:
			c, bad := azidentity.NewClientSecretCredential(tenant, client, word, secret)
			err = list(c, bad)
		}
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, not %q", test.name, err, test.want)
		}
	}
}

// A managed identity gets its token from where its machine says.
func TestManagedIdentity(t *testing.T) {
	s := start(t, azuretest.Options{})
	t.Setenv("IDENTITY_ENDPOINT", s.e.IdentityEndpoint())
	t.Setenv("IDENTITY_HEADER", s.e.IdentityHeader())
	cred, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: s.options})
	if err != nil {
		t.Fatal(err)
	}
	groups, err := armresources.NewResourceGroupsClient(s.e.Subscription(), cred, &arm.ClientOptions{ClientOptions: s.options})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := groups.NewListPager(nil).NextPage(t.Context()); err != nil {
		t.Error(err)
	}
}

// A token that has expired is refused; the SDK does not notice, as it goes by
// its own clock.
func TestTokensExpire(t *testing.T) {
	t.Parallel()
	s := start(t, azuretest.Options{})
	list := func() error {
		_, err := s.groups.NewListPager(nil).NextPage(t.Context())
		return err
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	s.e.Advance(2 * time.Hour)
	err := list()
	var r *azcore.ResponseError
	if !errors.As(err, &r) || r.ErrorCode != "ExpiredAuthenticationToken" || r.StatusCode != http.StatusUnauthorized {
		t.Errorf("an old token: %v", err)
	}
}
