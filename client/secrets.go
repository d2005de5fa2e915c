package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/openworkload/skyport"
)

// RegistryLogin is what a container registry wants to know. A username goes
// with a password; CA is PEM of the certificates that the registry's must chain
// to, "" for the public ones.
type RegistryLogin struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	CA       string `json:"ca,omitempty"`
}

// Secrets lists what the caller left with core, without the values: these are
// never returned.
func (c *Client) Secrets(ctx context.Context) ([]skyport.Secret, error) {
	return list[skyport.Secret](ctx, c, "secrets", nil)
}

// SetRegistry keeps the login of a container registry, or replaces it. Core
// keeps it sealed and hands it to the nodes that pull images of that host.
func (c *Client) SetRegistry(ctx context.Context, host string, login RegistryLogin) (skyport.Secret, error) {
	var secret skyport.Secret
	_, err := c.do(ctx, call{method: http.MethodPut, path: secretPath(skyport.SecretRegistry, host), in: login, out: &secret})
	return secret, err
}

// DeleteSecret makes core forget a secret; CodeNotFound when there is none.
func (c *Client) DeleteSecret(ctx context.Context, kind, name string) error {
	tries, err := c.do(ctx, call{method: http.MethodDelete, path: secretPath(kind, name)})
	if tries > 1 && skyport.CodeOf(err) == skyport.CodeNotFound {
		return nil // the try whose answer was lost did it
	}
	return err
}

func secretPath(kind, name string) string {
	return "/v1/secrets/" + url.PathEscape(kind) + "/" + url.PathEscape(name)
}
