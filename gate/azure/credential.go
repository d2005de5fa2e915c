package azure

import (
	"context"
	"crypto/x509"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/openworkload/skyport"
)

// biggestSecret bounds what is read of a file with credentials.
const biggestSecret = 1 << 20

// login is who we are: a credential of the SDK that is made anew when the file
// behind it changes.
type login struct {
	o      *Options
	client policy.ClientOptions
	// file is what the credential was read from; empty: from no file.
	file string

	mu      sync.Mutex
	now     azcore.TokenCredential
	read    os.FileInfo // of the file, when it was read
	expires time.Time   // of the certificate or the secret; zero: not known
	warned  time.Time   // when that was last spoken of
}

func newLogin(o *Options, client policy.ClientOptions) (*login, error) {
	l := &login{o: o, client: client, expires: o.SecretExpires}
	switch {
	case o.Certificate != "":
		l.file = o.Certificate
	case o.ClientSecret == "":
		l.file = o.SecretFile
	}
	// A file that cannot be read now may be later: the first call tells.
	if l.file == "" {
		if err := l.renew(nil); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// GetToken is what the SDK's clients call.
func (l *login) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	now, err := l.current()
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return now.GetToken(ctx, options) //nolint:wrapcheck // explain looks for the SDK's own error
}

// current reads the file again when it is another one than before.
func (l *login) current() (azcore.TokenCredential, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.warnOfExpiry()
	if l.file == "" {
		return l.now, nil
	}
	info, err := os.Stat(l.file)
	if err != nil && l.now == nil {
		return nil, refused("azure site %q: its credentials: %w", l.o.Name, err)
	}
	changed := l.read == nil || err == nil && (info.ModTime() != l.read.ModTime() || info.Size() != l.read.Size() || !os.SameFile(info, l.read))
	if err != nil || !changed {
		return l.now, nil
	}
	if err := l.renew(info); err != nil {
		if l.now == nil {
			return nil, err
		}
		// Half written, perhaps. What we have goes on until it is refused.
		l.o.Logger.Warn("the changed credentials cannot be used", "file", l.file, "error", err)
	}
	return l.now, nil
}

// warnOfExpiry says once a day that the credential ends soon. The lock is held.
func (l *login) warnOfExpiry() {
	if l.expires.IsZero() || time.Until(l.expires) > soon || time.Since(l.warned) < 24*time.Hour {
		return
	}
	l.warned = time.Now()
	l.o.Logger.Warn("the credentials for Azure end soon: make new ones and put them into the gate's configuration (az ad sp credential reset --append)",
		"site", l.o.Name, "client", l.o.ClientID, "ends", l.expires.UTC().Format(time.RFC3339))
}

// renew makes the credential. The lock is held, or nobody else is there yet.
func (l *login) renew(info os.FileInfo) error {
	secret := []byte(l.o.ClientSecret)
	if l.file != "" {
		var err error
		if secret, err = readSecret(l.file); err != nil {
			return refused("azure site %q: its credentials: %w", l.o.Name, err)
		}
	}
	now, err := l.credential(secret)
	if err != nil {
		return refused("azure site %q: its credentials: %w", l.o.Name, err)
	}
	l.now, l.read = now, info
	return nil
}

func readSecret(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeCredentials, "%w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, biggestSecret))
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeCredentials, "read %s: %w", name, err)
	}
	return data, nil
}

// credential is the one that the options name.
func (l *login) credential(secret []byte) (azcore.TokenCredential, error) {
	o := l.o
	// Only who gives an authority of their own vouches for it.
	own := o.Authority != ""
	switch {
	case o.Certificate != "":
		certificates, key, err := azidentity.ParseCertificates(secret, []byte(o.CertificatePassword))
		if err != nil {
			return nil, skyport.Errorf(skyport.CodeCredentials, "certificate in %s: %w", o.Certificate, err)
		}
		l.expires = soonest(certificates)
		return checked(azidentity.NewClientCertificateCredential(o.Tenant, o.ClientID, certificates, key, &azidentity.ClientCertificateCredentialOptions{
			ClientOptions: l.client, DisableInstanceDiscovery: own, SendCertificateChain: true,
		}))
	case o.ClientSecret != "", o.SecretFile != "":
		return checked(azidentity.NewClientSecretCredential(o.Tenant, o.ClientID, strings.TrimSpace(string(secret)), &azidentity.ClientSecretCredentialOptions{
			ClientOptions: l.client, DisableInstanceDiscovery: own,
		}))
	case o.ManagedIdentity != "":
		options := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: l.client}
		if o.ManagedIdentity != "system" {
			options.ID = azidentity.ClientID(o.ManagedIdentity)
		}
		return checked(azidentity.NewManagedIdentityCredential(options))
	case o.CLI:
		return checked(azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: o.Tenant, Subscription: o.Subscription}))
	}
	return checked(azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: l.client, TenantID: o.Tenant, DisableInstanceDiscovery: own,
	}))
}

// checked hides a typed nil.
func checked[T azcore.TokenCredential](made T, err error) (azcore.TokenCredential, error) {
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeCredentials, "%w", err)
	}
	return made, nil
}

// soonest is when the first of the certificates, ours, expires.
func soonest(certificates []*x509.Certificate) time.Time {
	if len(certificates) == 0 {
		return time.Time{}
	}
	return certificates[0].NotAfter
}

// expiry is when the credential expires, as far as that is known here.
func (l *login) expiry() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}
