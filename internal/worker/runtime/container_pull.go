package runtime

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// pulls lets runs that want the same image at the same time wait for one pull.
type pulls struct {
	mu   sync.Mutex
	live map[string]*flight
}

// flight is a pull that goes on.
type flight struct {
	done chan struct{}
	err  error // valid when done is closed

	mu    sync.Mutex
	said  string
	ears  map[int]func(string)
	count int
}

// listen lets a run hear how far the pull is.
func (f *flight) listen(ear func(string)) (forget func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.count
	f.count++
	f.ears[id] = ear
	if f.said != "" {
		ear(f.said)
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.ears, id)
	}
}

func (f *flight) tell(details string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = details
	for _, ear := range f.ears {
		ear(details)
	}
}

// do pulls, or waits for the one who does. When that one's run goes away,
// another takes over: the engine keeps what it has.
func (p *pulls) do(ctx context.Context, key string, ear func(string), pull func(context.Context, func(string)) error) error {
	for {
		p.mu.Lock()
		f, waits := p.live[key]
		if !waits {
			f = &flight{done: make(chan struct{}), ears: make(map[int]func(string))}
			if p.live == nil {
				p.live = make(map[string]*flight)
			}
			p.live[key] = f
		}
		p.mu.Unlock()
		forget := f.listen(ear)
		if !waits {
			f.err = pull(ctx, f.tell)
			p.mu.Lock()
			delete(p.live, key)
			p.mu.Unlock()
			close(f.done)
			return f.err
		}
		select {
		case <-f.done:
			forget()
		case <-ctx.Done():
			forget()
			return ctx.Err() //nolint:wrapcheck // the caller's own
		}
		if !errors.Is(f.err, context.Canceled) {
			return f.err
		}
	}
}

// pull is one image on its way.
type pull struct {
	engine     *engine
	image      string
	named      reference.Named
	login      protocol.Registry
	auth       string
	firstPause time.Duration
}

const (
	// patience is how long a pull is tried again when the registry is in trouble,
	// shortPatience when it cannot even be reached: its name may be wrong.
	patience      = 10 * time.Minute
	shortPatience = 2 * time.Minute
	longestPause  = time.Minute
)

// patiently pulls until the image is there or it is clear that it will not come.
func (p *pull) patiently(ctx context.Context, tell func(string)) error {
	began := time.Now()
	pause := p.firstPause
	tell("Pulling " + p.image)
	for {
		err := p.once(ctx, tell)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err() //nolint:wrapcheck // the caller's own
		}
		limit, asked, final := p.judge(err)
		if final != nil {
			return final
		}
		wait := max(pause, asked)
		if time.Since(began)+wait > limit {
			return skyport.Errorf(skyport.CodeUnavailable, "pull container image %s: %w", p.image, plain(err)).
				WithHint("look whether the registry %s is well and can be reached from the node, then requeue the job", p.login.Host)
		}
		tell(fmt.Sprintf("Pulling %s: %s; trying again in %s", p.image, skyport.Abbreviate(plain(err).Error(), 200), wait.Round(100*time.Millisecond)))
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		pause = min(2*pause, longestPause)
	}
}

// once asks the engine to pull and follows it.
func (p *pull) once(ctx context.Context, tell func(string)) error {
	resp, err := p.engine.api.ImagePull(ctx, p.named.String(), client.ImagePullOptions{RegistryAuth: p.auth})
	if err != nil {
		return err //nolint:wrapcheck // judged by the caller
	}
	seen := newLayers()
	var told time.Time
	for message, err := range resp.JSONMessages(ctx) {
		if err != nil {
			return err
		}
		if message.Error != nil {
			return message.Error
		}
		seen.add(message)
		if now := time.Now(); now.Sub(told) >= 250*time.Millisecond {
			if details := seen.details(p.image); details != "" {
				told = now
				tell(details)
			}
		}
	}
	return nil
}

// layers sums up what the engine tells of each layer.
type layers struct {
	order []string
	byID  map[string]*layer
}

type layer struct {
	got, size           int64 // of the download
	unpacked, toUnpack  int64
	downloaded, skipped bool
}

func newLayers() *layers { return &layers{byID: make(map[string]*layer)} }

func (ls *layers) add(m jsonstream.Message) {
	if m.ID == "" {
		return
	}
	l := ls.byID[m.ID]
	if l == nil {
		l = &layer{}
		ls.byID[m.ID] = l
		ls.order = append(ls.order, m.ID)
	}
	switch m.Status {
	case "Downloading":
		if m.Progress != nil {
			l.got, l.size = m.Progress.Current, max(m.Progress.Total, l.size)
		}
	case "Extracting":
		l.downloaded = true
		if m.Progress != nil {
			l.unpacked, l.toUnpack = m.Progress.Current, m.Progress.Total
		}
	case "Verifying Checksum", "Download complete":
		l.downloaded = true
	case "Pull complete":
		l.downloaded, l.unpacked = true, l.toUnpack
	case "Already exists":
		l.skipped = true
	}
}

// details says how far it is; nothing while nothing is known.
func (ls *layers) details(image string) string {
	var got, size, unpacked, toUnpack int64
	downloading := false
	for _, id := range ls.order {
		l := ls.byID[id]
		if l.skipped {
			continue
		}
		total := max(l.size, l.toUnpack)
		size += total
		if l.downloaded {
			got += total
		} else {
			got += l.got
			downloading = downloading || l.size > 0
		}
		unpacked, toUnpack = unpacked+l.unpacked, toUnpack+total
	}
	switch {
	case size == 0:
		return ""
	case downloading || unpacked == 0:
		return fmt.Sprintf("Pulling %s: %s of %s", image, skyport.Bytes(got), skyport.Bytes(size))
	default:
		return fmt.Sprintf("Unpacking %s: %s of %s", image, skyport.Bytes(unpacked), skyport.Bytes(toUnpack))
	}
}

// retryAfter is how registries say it in the text of an error.
var retryAfter = regexp.MustCompile(`(?i)retry-after: *([0-9.]+(?:ms|s|m)?)`)

// judge says whether trying again is of use: a final error when it is not, else
// for how long to go on, and how long the registry asked us to wait.
func (p *pull) judge(err error) (limit, asked time.Duration, final error) {
	text := plain(err).Error()
	low := strings.ReplaceAll(strings.ToLower(text), strings.ToLower(p.named.Name()), "") // a name may say anything
	has := func(signs ...string) bool {
		for _, sign := range signs {
			if strings.Contains(low, sign) {
				return true
			}
		}
		return false
	}
	host := p.login.Host
	login := "skyport secret set registry " + host
	switch {
	case has("toomanyrequests", "too many requests", "rate limit"):
		if m := retryAfter.FindStringSubmatch(text); m != nil {
			if d, err := time.ParseDuration(m[1]); err == nil {
				asked = d
			} else if d, err := time.ParseDuration(m[1] + "s"); err == nil {
				asked = d
			}
		}
		return patience, min(asked, longestPause), nil
	case has("x509:", "http response to https client", "tls: failed to verify"):
		return 0, 0, skyport.Errorf(skyport.CodeUnavailable, "pull container image %s: the certificate of registry %s is not trusted: %s", p.image, host, text).
			WithHint("give its authority with %s --ca FILE", login)
	case has("no such host", "connection refused", "no route to host", "network is unreachable") || away(err):
		return shortPatience, 0, nil
	case has("no matching manifest", "no match for platform", "does not match the specified platform", "no image found in manifest list",
		"no image found in image index"):
		return 0, 0, otherArchitecture(p.image, "")
	case has("no space left"):
		return 0, 0, skyport.Errorf(skyport.CodeNoSpace, "pull container image %s: %s", p.image, text).WithHint("choose a flavor with more storage")
	case has("pull access denied", "may require 'docker login'"):
		return 0, 0, skyport.Errorf(skyport.CodeUnknownImage, "container image %s does not exist, or registry %s wants a login for it", p.image, host).
			WithHint("look at its name; if it is private: %s", login)
	case has("manifest unknown", "name unknown", "not known to registry", "not found", "does not exist"):
		return 0, 0, skyport.Errorf(skyport.CodeUnknownImage, "container image %s does not exist in registry %s", p.image, host).
			WithHint("look at its name and tag")
	case has("unauthorized", "authentication required", "no basic auth", "denied", "forbidden", "invalid username/password", "incorrect username or password"):
		if p.auth != "" {
			return 0, 0, skyport.Errorf(skyport.CodeForbidden, "registry %s refuses the login of %s for container image %s", host, p.login.Username, p.image).
				WithHint("give the right one with %s", login)
		}
		return 0, 0, skyport.Errorf(skyport.CodeForbidden, "registry %s wants a login for container image %s", host, p.image).
			WithHint("give one with %s", login)
	case has("unsupported media type", "schema 1", "invalid reference", "not a valid"):
		return 0, 0, skyport.Errorf(skyport.CodeUnsupported, "pull container image %s: %s", p.image, text)
	}
	return patience, 0, nil
}
