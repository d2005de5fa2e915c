package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/openworkload/skyport"
)

// Sites returns the sites that jobs may run at.
func (c *Client) Sites(ctx context.Context) ([]skyport.Site, error) {
	return list[skyport.Site](ctx, c, "sites", nil)
}

// Flavors returns the flavors of all sites.
func (c *Client) Flavors(ctx context.Context) ([]skyport.Flavor, error) {
	return list[skyport.Flavor](ctx, c, "flavors", nil)
}

// Images returns the images of all sites.
func (c *Client) Images(ctx context.Context) ([]skyport.Image, error) {
	return list[skyport.Image](ctx, c, "images", nil)
}

// Nodes returns the nodes of the partitions that there are.
func (c *Client) Nodes(ctx context.Context) ([]skyport.NodeStatus, error) {
	return list[skyport.NodeStatus](ctx, c, "nodes", nil)
}

// Accounts returns the accounts that the caller may spend from.
func (c *Client) Accounts(ctx context.Context) ([]skyport.Account, error) {
	return list[skyport.Account](ctx, c, "accounts", nil)
}

// Partitions returns the partitions that there are; with all, also those that
// were deleted.
func (c *Client) Partitions(ctx context.Context, all bool) ([]skyport.Partition, error) {
	return list[skyport.Partition](ctx, c, "partitions", url.Values{"all": {strconv.FormatBool(all)}})
}

// list reads a list of the catalogue: its route and its only member share a name.
func list[T any](ctx context.Context, c *Client, name string, query url.Values) ([]T, error) {
	var answer map[string][]T
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/" + name, query: query, out: &answer})
	return answer[name], err
}

// Sweep compares a site, or with an empty name all, with the store and removes
// what the store does not know; dry only tells.
func (c *Client) Sweep(ctx context.Context, site string, dry bool) ([]skyport.Orphan, error) {
	var answer struct {
		Orphans []skyport.Orphan `json:"orphans"`
	}
	query := url.Values{"dry": {strconv.FormatBool(dry)}}
	if site != "" {
		query.Set("site", site)
	}
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/gc", query: query, out: &answer})
	return answer.Orphans, err
}

// Whoami returns the user that core takes the caller for.
func (c *Client) Whoami(ctx context.Context) (skyport.User, error) {
	var user skyport.User
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/whoami", out: &user})
	return user, err
}

// Version returns the version of core.
func (c *Client) Version(ctx context.Context) (skyport.Version, error) {
	var v skyport.Version
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/version", out: &v})
	return v, err
}

// Ready says why core cannot work properly now, or nil. It is tried once.
func (c *Client) Ready(ctx context.Context) error {
	return c.persist(ctx, 0, func() error {
		return c.try(ctx, call{method: http.MethodGet, path: "/readyz"}, nil)
	})
}
