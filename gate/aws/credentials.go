package aws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/logincreds"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// freshness is how long keys of a file are used before the file is read again,
// notice how long before their end credentials are renewed, or told to end.
const (
	freshness = 30 * time.Second
	notice    = 10 * time.Minute
)

// credentials are those of the options; nil leaves them to the SDK.
func (o Options) credentials() sdk.CredentialsProvider {
	switch {
	case o.AccessKey != "":
		return credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, o.SessionToken)
	case o.CredentialsFile != "":
		return keyFile{path: o.CredentialsFile, profile: o.Profile}
	}
	return nil
}

// keyFile reads a file as ~/.aws/credentials.
type keyFile struct{ path, profile string }

// Retrieve reads the file. What it returns lasts a short while, so that the
// SDK's cache asks again and a changed file is seen.
func (k keyFile) Retrieve(ctx context.Context) (sdk.Credentials, error) {
	profile := k.profile
	if profile == "" {
		profile = config.DefaultSharedConfigProfile
	}
	shared, err := config.LoadSharedConfigProfile(ctx, profile, func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{k.path}, []string{}
	})
	if err != nil {
		return sdk.Credentials{}, fmt.Errorf("profile %s of %s: %w", profile, k.path, err)
	}
	if !shared.Credentials.HasKeys() {
		return sdk.Credentials{}, fmt.Errorf("profile %s of %s has no keys", profile, k.path)
	}
	found := shared.Credentials
	found.CanExpire, found.Expires = true, time.Now().Add(notice+freshness)
	return found, nil
}

// renewer hands out the credentials of the chain, which the SDK renews some time
// before they end. When that fails, the old ones do as long as they last, and
// the log tells when that is; a failure without any has a code.
type renewer struct {
	chain sdk.CredentialsProvider
	site  string
	log   *slog.Logger

	mu   sync.Mutex
	last sdk.Credentials
	told time.Time
}

// Retrieve asks the chain.
func (r *renewer) Retrieve(ctx context.Context) (sdk.Credentials, error) {
	found, err := r.chain.Retrieve(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		if found.CanExpire {
			found.Expires = found.Expires.Add(notice) // the SDK's cache took that off
		}
		r.last = found
		return found, nil
	}
	now := time.Now()
	if r.last.HasKeys() && r.last.CanExpire && now.Before(r.last.Expires) {
		if now.Sub(r.told) > notice/5 {
			r.told = now
			r.log.WarnContext(ctx, "the credentials end soon and cannot be renewed: log in again, with aws sso login for instance",
				"until", r.last.Expires, "error", err)
		}
		return r.last, nil
	}
	var network net.Error
	if ctx.Err() != nil || errors.As(err, &network) {
		return found, fmt.Errorf("site %s: get credentials: %w", r.site, err)
	}
	return found, cloud.Permanent(skyport.CodeCredentials, "site %s: there are no credentials for AWS: %w", r.site, err).
		WithHint("log in with `aws sso login`, or say profile or credentials_file in gate.yaml")
}

// lasting tells how long credentials are good for, and whether they are renewed
// without a person. until is zero when they do not end, or when nobody can know.
func lasting(c sdk.Credentials) (until time.Time, renewed bool) {
	switch {
	case !c.CanExpire:
		return time.Time{}, c.SessionToken == ""
	case c.Source == ssocreds.ProviderName, c.Source == logincreds.ProviderName:
		return c.Expires, false
	}
	return c.Expires, true // a role's, or those of a file that is read again
}
