package openstack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/utils"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

const (
	// expiryNotice is how long before its end an application credential is spoken of.
	expiryNotice = 14 * 24 * time.Hour
	// callLimit is how long one call to the cloud may take.
	callLimit = 2 * time.Minute
)

// microversion is the compute API that is asked for where the cloud has it:
// extra specs in the list of flavors (2.61), server groups of one policy (2.64).
// https://docs.openstack.org/nova/latest/reference/api-microversion-history.html
var microversion = [2]int{2, 67}

// session is one login to the cloud. gophercloud renews its token when it ends.
type session struct {
	stamp    string
	provider *gophercloud.ProviderClient
	own      bool // the transport is ours to close

	compute, network, image, identity *gophercloud.ServiceClient
	volume                            *gophercloud.ServiceClient // nil: the cloud has none

	minor         int // of the compute API
	project, user string
	roles         []string
	credential    string    // id of the application credential, if it is one
	expires       time.Time // of the application credential; zero: never, or not known
	warned        time.Time
	missing       []string // services that the catalogue does not have
}

// open gives the session, a new one when the credentials have changed.
func (s *site) open(ctx context.Context) (*session, error) {
	a, err := s.account()
	if err != nil {
		return nil, permanently(err)
	}
	var se *session
	select {
	case se = <-s.turn:
	case <-ctx.Done():
		return nil, s.explain(ctx.Err(), "log in at "+a.Auth.AuthURL)
	}
	defer func() { s.turn <- se }()
	if se == nil || se.stamp != a.stamp {
		fresh, err := s.authenticate(ctx, a)
		if err != nil {
			return nil, err
		}
		if se != nil {
			s.log.InfoContext(ctx, "credentials have changed, logged in anew")
			se.close()
		}
		se = fresh
	}
	s.warnOfExpiry(se)
	return se, nil
}

// permanently keeps code and hint of an error and makes it one that trying
// again does not mend.
func permanently(err error) error {
	return cloud.Permanent(skyport.CodeOf(err), "%w", err).WithHint("%s", skyport.HintOf(err))
}

func (se *session) close() {
	if se.own {
		se.provider.HTTPClient.CloseIdleConnections()
	}
}

func (s *site) authenticate(ctx context.Context, a account) (*session, error) {
	provider, err := openstack.NewClient(a.Auth.AuthURL)
	if err != nil {
		return nil, cloud.Permanent(skyport.CodeCredentials, "auth_url %s: %w", a.Auth.AuthURL, err)
	}
	provider.UseTokenLock()
	provider.UserAgent.Prepend("skyport")
	se := &session{stamp: a.stamp, provider: provider}
	if s.o.HTTP != nil {
		provider.HTTPClient = *s.o.HTTP
	} else {
		transport, err := transport(a)
		if err != nil {
			return nil, err
		}
		provider.HTTPClient = http.Client{Transport: transport, Timeout: callLimit}
		se.own = true
	}
	// https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management
	if err := openstack.Authenticate(ctx, provider, a.options()); err != nil {
		se.close()
		return nil, s.loginError(err, a)
	}
	se.describe()
	if err := se.services(ctx, a); err != nil {
		se.close()
		return nil, err
	}
	se.readExpiry(ctx)
	return se, nil
}

func transport(a account) (*http.Transport, error) {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		base = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	t := base.Clone()
	t.MaxIdleConnsPerHost = 16
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if a.Verify != nil && !*a.Verify {
		t.TLSClientConfig.InsecureSkipVerify = true // the person's clouds.yaml says `verify: false`
	}
	if a.CACert != "" {
		text, err := readSmall(a.CACert)
		if err != nil {
			return nil, cloud.Permanent(skyport.CodeCredentials, "certificates of the cloud's authority: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, cloud.Permanent(skyport.CodeCredentials, "%s holds no certificate", a.CACert)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	if a.Cert != "" {
		pair, err := tls.LoadX509KeyPair(a.Cert, a.Key)
		if err != nil {
			return nil, cloud.Permanent(skyport.CodeCredentials, "client certificate %s: %w", a.Cert, err)
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// describe reads what the token says of us.
func (se *session) describe() {
	var token struct {
		User    struct{ ID string }
		Project struct{ ID string }
		Roles   []struct{ Name string }

		Credential struct{ ID string } `json:"application_credential"`
	}
	result, ok := se.provider.GetAuthResult().(interface{ ExtractInto(to any) error })
	if !ok || result.ExtractInto(&token) != nil {
		return
	}
	se.user, se.project, se.credential = token.User.ID, token.Project.ID, token.Credential.ID
	for _, role := range token.Roles {
		se.roles = append(se.roles, role.Name)
	}
}

// services finds the endpoints. Without compute, network and image there is no site.
func (se *session) services(ctx context.Context, a account) error {
	where := gophercloud.EndpointOpts{Region: a.Region, Availability: availability(a.Interface)}
	var errs []error
	type opener func(*gophercloud.ProviderClient, gophercloud.EndpointOpts) (*gophercloud.ServiceClient, error)
	find := func(name string, of opener) *gophercloud.ServiceClient {
		client, err := of(se.provider, where)
		if err != nil {
			se.missing = append(se.missing, name)
			errs = append(errs, err)
			return nil
		}
		return client
	}
	se.compute = find("compute", openstack.NewComputeV2)
	se.network = find("network", openstack.NewNetworkV2)
	se.image = find("image", openstack.NewImageV2)
	if len(errs) > 0 {
		var unknown *gophercloud.ErrEndpointNotFound
		text := "the cloud offers no service %s in region %q to this project: %w"
		joined := errors.Join(errs...)
		if errors.As(joined, &unknown) || strings.Contains(joined.Error(), "No suitable") {
			return cloud.Permanent(skyport.CodeCredentials, text, strings.Join(se.missing, ", "), a.Region, joined).
				WithHint("openstack catalog list; openstack region list")
		}
		return skyport.Errorf(skyport.CodeUnavailable, text, strings.Join(se.missing, ", "), a.Region, joined)
	}
	se.volume = find("volume", openstack.NewBlockStorageV3)
	// The identity service is where we have logged in; the catalogue may not name it.
	if se.identity = find("identity", openstack.NewIdentityV3); se.identity != nil && !strings.Contains(se.identity.Endpoint, "/v3") {
		se.identity.Endpoint = strings.TrimSuffix(se.identity.Endpoint, "/") + "/v3/"
	}
	if versions, err := utils.GetSupportedMicroversions(ctx, se.compute); err == nil && versions.MaxMajor == microversion[0] {
		se.minor = min(versions.MaxMinor, microversion[1])
		se.compute.Microversion = "2." + itoa(se.minor)
	}
	return nil
}

func availability(kind string) gophercloud.Availability {
	switch strings.TrimSuffix(kind, "URL") {
	case "internal":
		return gophercloud.AvailabilityInternal
	case "admin":
		return gophercloud.AvailabilityAdmin
	}
	return gophercloud.AvailabilityPublic
}

// readExpiry asks when the application credential ends.
// https://docs.openstack.org/api-ref/identity/v3/#show-application-credential-details
func (se *session) readExpiry(ctx context.Context) {
	if se.credential == "" || se.user == "" || se.identity == nil {
		return
	}
	var answer struct {
		Credential struct {
			Expires string `json:"expires_at"`
		} `json:"application_credential"`
	}
	url := se.identity.ServiceURL("users", se.user, "application_credentials", se.credential)
	if fetch(ctx, se.identity, url, &answer) != nil {
		return // policy may forbid it; then nothing is known
	}
	se.expires = when(answer.Credential.Expires)
}

// warnOfExpiry says once a day that the application credential ends soon.
// The session is taken out.
func (s *site) warnOfExpiry(se *session) {
	if !se.endsSoon() || time.Since(se.warned) < 24*time.Hour {
		return
	}
	se.warned = time.Now()
	s.log.Warn("the application credential ends soon: make a new one and put it into the configuration",
		"credential", se.credential, "ends", se.expires.UTC().Format(time.RFC3339))
}

func (se *session) endsSoon() bool {
	return !se.expires.IsZero() && time.Until(se.expires) < expiryNotice
}

// mayCreate guesses by the roles whether the project lets us make things.
func (se *session) mayCreate() bool {
	return len(se.roles) == 0 || slices.ContainsFunc(se.roles, func(role string) bool { return role != "reader" })
}

// when reads a time as the services write it: with and without zone and fraction.
func when(text string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05.999999", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
