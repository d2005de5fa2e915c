package openstack

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
)

// maxPages bounds a listing: a service whose next page is the same again.
const maxPages = 1000

// linger is how long a call that makes something goes on when its caller has
// ended: what it makes must not come into being after everybody has looked.
const linger = 15 * time.Second

func itoa(n int) string { return strconv.Itoa(n) }

// fetch gets one thing.
func fetch(ctx context.Context, client *gophercloud.ServiceClient, at string, to any) error {
	_, err := client.Get(ctx, at, to, nil) //nolint:bodyclose // gophercloud reads and closes it
	return err                             //nolint:wrapcheck // explain says what was tried
}

// pages gets all pages of a list. Next pages are asked at our own endpoint:
// what services believe their address to be is often wrong behind a proxy.
//
//	network, compute: "networks_links": [{"rel": "next", "href": "…"}]
//	image:            "next": "/v2/images?marker=…"
func pages[T any](ctx context.Context, client *gophercloud.ServiceClient, path, name string, query url.Values) ([]T, error) {
	var all []T
	for range maxPages {
		at := client.ServiceURL(path)
		if len(query) > 0 {
			at += "?" + query.Encode()
		}
		var answer map[string]json.RawMessage
		if err := fetch(ctx, client, at, &answer); err != nil {
			return nil, err
		}
		var page []T
		if err := json.Unmarshal(answer[name], &page); err != nil {
			return nil, fmt.Errorf("list of %s: %w", name, err)
		}
		all = append(all, page...)
		next := nextPage(answer, name)
		if next == nil || len(page) == 0 {
			return all, nil
		}
		query = next
	}
	return nil, fmt.Errorf("list of %s does not end after %d pages", name, maxPages)
}

func nextPage(answer map[string]json.RawMessage, name string) url.Values {
	var href string
	var links []struct{ Rel, Href string }
	if raw, ok := answer[name+"_links"]; ok && json.Unmarshal(raw, &links) == nil {
		for _, link := range links {
			if link.Rel == "next" {
				href = link.Href
			}
		}
	}
	if raw, ok := answer["next"]; ok && href == "" {
		if json.Unmarshal(raw, &href) != nil {
			return nil
		}
	}
	at, err := url.Parse(href)
	if href == "" || err != nil {
		return nil
	}
	return at.Query()
}

// lingering outlives its parent a little.
func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	timer := make(chan *time.Timer, 1)
	stop := context.AfterFunc(ctx, func() { timer <- time.AfterFunc(linger, cancel) })
	return longer, func() {
		if !stop() {
			(<-timer).Stop()
		}
		cancel()
	}
}

// create makes a thing and reads what the service has made of it.
func create(ctx context.Context, client *gophercloud.ServiceClient, path string, body, to any) error {
	if err := ctx.Err(); err != nil {
		return err //nolint:wrapcheck // explain says what was tried
	}
	ctx, cancel := lingering(ctx)
	defer cancel()
	_, err := client.Post(ctx, client.ServiceURL(path), body, to, &gophercloud.RequestOpts{ //nolint:bodyclose // gophercloud reads and closes it
		OkCodes: []int{http.StatusOK, http.StatusCreated, http.StatusAccepted},
	})
	return err //nolint:wrapcheck // explain says what was tried
}

// change updates a thing.
func change(ctx context.Context, client *gophercloud.ServiceClient, path string, body any) error {
	_, err := client.Put(ctx, client.ServiceURL(path), body, nil, &gophercloud.RequestOpts{ //nolint:bodyclose // gophercloud reads and closes it
		OkCodes: []int{http.StatusOK, http.StatusCreated, http.StatusAccepted},
	})
	return err //nolint:wrapcheck // explain says what was tried
}

// remove removes a thing. That it is gone already is no error.
func remove(ctx context.Context, client *gophercloud.ServiceClient, path ...string) error {
	_, err := client.Delete(ctx, client.ServiceURL(strings.Join(path, "/")), nil) //nolint:bodyclose // gophercloud reads and closes it
	if gone(err) {
		return nil
	}
	return err //nolint:wrapcheck // explain says what was tried
}

// pause waits, or less when the context ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting was given up: %w", context.Cause(ctx))
	}
}
