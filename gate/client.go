package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openworkload/skyport"
)

// Client talks to a gate's [Server], or to any gate with the same routes. It
// may be used from many goroutines. Its errors are those of the providers
// behind the gate: they match [ErrNotFound], [ErrConflict] and [ErrPermanent]
// and carry a [skyport.Code]; a gate that cannot be reached is CodeUnavailable.
// Every call may be made again after an error.
type Client struct {
	base string
	http *http.Client
}

const (
	// clientTimeout bounds every call but the wait for a change. It is longer
	// than a server waits for its provider.
	clientTimeout = 45 * time.Second
	// longPoll is what one request of Wait asks for.
	longPoll = 50 * time.Second
	// maxAnswer bounds what is read of an answer: lists of thousands of
	// flavors or partitions fit well.
	maxAnswer = 32 << 20
)

// NewClient makes a client of the gate at baseURL, such as
// "https://127.0.0.1:8444". The http client brings the certificates; it must
// not have a Timeout of its own shorter than a minute. Nil means
// [http.DefaultClient], which no gate admits unless told to.
func NewClient(baseURL string, c *http.Client) *Client {
	if c == nil {
		c = http.DefaultClient
	}
	return &Client{base: strings.TrimSuffix(baseURL, "/"), http: c}
}

// Sites lists the sites of all providers.
func (c *Client) Sites(ctx context.Context) ([]skyport.Site, error) {
	var a struct {
		Sites []skyport.Site `json:"sites"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/sites", nil, nil, &a)
	return a.Sites, err
}

// Flavors lists what nodes a site offers.
func (c *Client) Flavors(ctx context.Context, site string) ([]skyport.Flavor, error) {
	var a struct {
		Flavors []skyport.Flavor `json:"flavors"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/sites/"+url.PathEscape(site)+"/flavors", nil, nil, &a)
	return a.Flavors, err
}

// Images lists the images of a site.
func (c *Client) Images(ctx context.Context, site string) ([]skyport.Image, error) {
	var a struct {
		Images []skyport.Image `json:"images"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/sites/"+url.PathEscape(site)+"/images", nil, nil, &a)
	return a.Images, err
}

// Registry asks a site for a login of a container registry; see [Lender].
func (c *Client) Registry(ctx context.Context, site, host string) (Login, error) {
	var a Login
	err := c.call(ctx, http.MethodGet, "/v1/sites/"+url.PathEscape(site)+"/registries/"+url.PathEscape(host), nil, nil, &a)
	return a, err
}

// Storage asks a site for what opens one of its storages; see [Lender].
func (c *Client) Storage(ctx context.Context, site, name string, life time.Duration) (Mount, error) {
	var a Mount
	path := "/v1/sites/" + url.PathEscape(site) + "/storages/" + url.PathEscape(name)
	err := c.call(ctx, http.MethodPost, path, nil, storageBody{Life: skyport.Seconds(life / time.Second)}, &a)
	return a, err
}

// Create starts the creation of a partition; see [Provider]'s Create.
func (c *Client) Create(ctx context.Context, spec PartitionSpec) error {
	return c.call(ctx, http.MethodPut, partitionPath(spec.ID), nil, spec, nil)
}

// Status tells how far a partition is now.
func (c *Client) Status(ctx context.Context, site string, id skyport.PartitionID) (PartitionStatus, error) {
	var a versionedStatus
	err := c.call(ctx, http.MethodGet, partitionPath(id), url.Values{"site": {site}}, nil, &a)
	return a.PartitionStatus, err
}

// Wait returns the status of a partition as soon as its version is another
// than after, with that version. With an empty after it answers at once, so a
// loop that starts with "" and passes on what it got sees every change that
// lasts. It waits until ctx ends; ErrNotFound, like every error, ends it too.
func (c *Client) Wait(ctx context.Context, site string, id skyport.PartitionID, after string) (status PartitionStatus, version string, err error) {
	query := url.Values{"site": {site}}
	if after != "" {
		query.Set("after", after)
		query.Set("wait", strconv.Itoa(int(longPoll.Seconds())))
	}
	for {
		var a versionedStatus
		start := time.Now()
		if err := c.call(ctx, http.MethodGet, partitionPath(id), query, nil, &a); err != nil {
			return PartitionStatus{}, "", err
		}
		if a.Version != after || after == "" {
			return a.PartitionStatus, a.Version, nil
		}
		// A gate that is stopping, or that knows no long polls, answers early.
		if err := pause(ctx, time.Second-time.Since(start)); err != nil {
			return PartitionStatus{}, "", err
		}
	}
}

// List tells the partitions at a site with the owner's tag; empty: all.
func (c *Client) List(ctx context.Context, site, owner string) ([]PartitionStatus, error) {
	var a struct {
		Partitions []PartitionStatus `json:"partitions"`
	}
	query := url.Values{"site": {site}}
	if owner != "" {
		query.Set("owner", owner)
	}
	err := c.call(ctx, http.MethodGet, "/v1/partitions", query, nil, &a)
	return a.Partitions, err
}

// Extend moves the end of a partition's lease.
func (c *Client) Extend(ctx context.Context, site string, id skyport.PartitionID, until time.Time) error {
	return c.call(ctx, http.MethodPut, partitionPath(id)+"/lease", url.Values{"site": {site}}, leaseBody{Until: until}, nil)
}

// Delete starts the removal of a partition. It is complete when Status says
// ErrNotFound.
func (c *Client) Delete(ctx context.Context, site string, id skyport.PartitionID) error {
	return c.call(ctx, http.MethodDelete, partitionPath(id), url.Values{"site": {site}}, nil, nil)
}

func partitionPath(id skyport.PartitionID) string {
	return "/v1/partitions/" + url.PathEscape(string(id))
}

// call makes one request. out may be nil when no body is expected.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	timeout := clientTimeout
	if query.Get("wait") != "" {
		timeout += longPoll
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	what := "gate: " + method + " " + path
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		body = bytes.NewReader(text)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return skyport.Errorf(skyport.CodeUnavailable, "the gate does not answer: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read to the end or given up
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return skyport.Errorf(skyport.CodeUnavailable, "%s: the answer broke off: %w", what, err)
	case len(text) > maxAnswer:
		return skyport.Errorf(skyport.CodeTooLarge, "%s: the answer is larger than %d bytes", what, maxAnswer)
	case resp.StatusCode >= 300:
		return refused(what, resp, text)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// refused makes an error of an error answer. Something else than a gate may
// have answered: then only the HTTP status is known, and trying again may help.
func refused(what string, resp *http.Response, text []byte) error {
	var p Problem
	if err := json.Unmarshal(text, &p); err != nil || p.Code == "" {
		return skyport.Errorf(skyport.CodeUnavailable, "%s: unexpected answer: %s", what, resp.Status)
	}
	return p.Err()
}

// pause waits, or returns the error of a context that ended first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(0, d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return skyport.Errorf(skyport.CodeUnavailable, "gate: gave up waiting: %w", errors.Join(ctx.Err(), context.Cause(ctx)))
	}
}
