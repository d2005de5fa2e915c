package azure

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// Hosts of Azure's registries, in all of its clouds, some with a label of their own.
var registryHost = regexp.MustCompile(`^[a-z0-9]{5,50}(-[a-z0-9]{1,40})?\.azurecr\.(io|us|cn)$`)

// registryUser is the user of all logins by a token. See
// https://learn.microsoft.com/azure/container-registry/container-registry-authentication
const registryUser = "00000000-0000-0000-0000-000000000000"

// RegistryLogin exchanges who we are for a login of a registry, good for some
// hours, that may do there what we may. See
// https://azure.github.io/acr/AAD-OAuth.html
func (s *site) RegistryLogin(ctx context.Context, host string) (user, token string, err error) {
	host = strings.ToLower(host)
	if !registryHost.MatchString(host) {
		return "", "", notRegistry(s.o.Name, host)
	}
	return s.registryLogin(ctx, host, "https://"+host)
}

func (s *site) registryLogin(ctx context.Context, host, base string) (user, token string, err error) {
	mine, err := s.login.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{s.audience + "/.default"}})
	if err != nil {
		return "", "", s.explain(err, "log in to Azure for the registry %s", host)
	}
	form := url.Values{"grant_type": {"access_token"}, "service": {host}, "access_token": {mine.Token}}
	if s.o.Tenant != "" {
		form.Set("tenant", s.o.Tenant)
	}
	var got struct {
		Token string `json:"refresh_token"`
	}
	request, err := runtime.NewRequest(ctx, http.MethodPost, base+"/oauth2/exchange")
	if err != nil {
		return "", "", s.explain(err, "log in to the registry %s", host)
	}
	if err := request.SetBody(streaming.NopCloser(strings.NewReader(form.Encode())), "application/x-www-form-urlencoded"); err != nil {
		return "", "", s.explain(err, "log in to the registry %s", host)
	}
	answer, err := s.public.Do(request) //nolint:bodyclose // the SDK reads and closes it here and below
	if err != nil {
		return "", "", s.explain(err, "log in to the registry %s", host)
	}
	switch {
	case answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden:
		return "", "", cloud.Permanent(skyport.CodeCredentials, "the registry %s does not let us in", host).
			WithHint("az role assignment create --assignee %s --role AcrPull --scope $(az acr show -n %s --query id -o tsv)",
				s.assignee(), strings.SplitN(host, ".", 2)[0])
	case !runtime.HasStatusCode(answer, http.StatusOK):
		return "", "", s.explain(runtime.NewResponseError(answer), "log in to the registry %s", host)
	}
	if err := runtime.UnmarshalAsJSON(answer, &got); err != nil || got.Token == "" {
		return "", "", skyport.Errorf(skyport.CodeUnavailable, "the registry %s answers what is no login", host)
	}
	return registryUser, got.Token, nil
}
