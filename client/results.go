package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
)

// ResultList says which outputs of a job arrived; CodeNotFound before.
func (c *Client) ResultList(ctx context.Context, id skyport.JobID) (skyport.Results, error) {
	var results skyport.Results
	_, err := c.do(ctx, call{method: http.MethodGet, path: jobPath(id, "results"), out: &results})
	return results, err
}

// Results downloads the outputs of a job into a directory, which is made when
// it is not there. What lies there already is not sent again; every file is
// checked and comes in place atomically. Progress may be nil; it is called
// from one goroutine at a time.
func (c *Client) Results(ctx context.Context, id skyport.JobID, dir string, progress func(skyport.Transfer)) (skyport.Results, error) {
	results, err := c.ResultList(ctx, id)
	if err != nil {
		return results, err
	}
	options := transfer.Options{Name: "outputs", Attempts: pushAttempts, Progress: progress}
	if _, err := transfer.Pull(ctx, c.http, c.base+jobPath(id, "results", "transfer"), dir, options); err != nil {
		return results, skyport.Errorf(skyport.CodeOf(err), "download the results to %s: %w", dir, err).WithHint("%s", skyport.HintOf(err))
	}
	return results, nil
}

// ResultFile opens one file of the results. Close it.
func (c *Client) ResultFile(ctx context.Context, id skyport.JobID, path string) (io.ReadCloser, error) {
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	var body io.ReadCloser
	err := c.persist(ctx, c.patience, func() error {
		response, err := c.send(ctx, call{method: http.MethodGet, path: jobPath(id, append([]string{"results", "files"}, parts...)...)}, nil)
		if err == nil {
			body = response.Body
		}
		return err
	})
	return body, err
}
