package core

import (
	"context"
	"log/slog"
	"net/url"
	"time"

	"github.com/openworkload/skyport/internal/core/store"
)

const (
	houseEvery   = 10 * time.Minute // between two rounds
	keepKeys     = 48 * time.Hour   // how long an Idempotency-Key is remembered
	keepInputs   = 24 * time.Hour   // how long staged inputs wait for a job that names them
	purgeAtOnce  = 1000
	firstDelayed = 2 * time.Second // the first round does not slow down the start
)

// keepHouse does, once in a while, what nobody asks for: it looks for what is
// left at sites, lets go of jobs past their retention, of staged inputs that no
// job names, and of old idempotency keys.
func (b *backend) keepHouse(ctx context.Context, retention time.Duration, log *slog.Logger) {
	select {
	case <-ctx.Done():
		return
	case <-b.catalog.Loaded():
	}
	for wait := firstDelayed; ; wait = houseEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		for what, do := range map[string]func() error{
			"sites":  func() error { return b.sweepSites(ctx, log) },
			"jobs":   func() error { return b.purgeOld(ctx, retention) },
			"inputs": func() error { return b.sweepInputs(ctx) },
			"keys": func() error {
				return b.store.Update(ctx, func(tx *store.Tx) error { return tx.ForgetSubmissions(tx.Now().Add(-keepKeys)) })
			},
		} {
			if err := do(); err != nil && ctx.Err() == nil {
				log.Warn("housekeeping", "of", what, "error", err)
			}
		}
	}
}

func (b *backend) sweepSites(ctx context.Context, log *slog.Logger) error {
	orphans, err := b.engine.Sweep(ctx, "", false)
	for _, o := range orphans {
		log.Warn("removing what the store does not know", "site", o.Site, "partition", o.Partition, "reason", o.Reason)
	}
	return err
}

func (b *backend) purgeOld(ctx context.Context, retention time.Duration) error {
	if retention <= 0 {
		return nil
	}
	ids, err := b.store.EndedBefore(ctx, time.Now().Add(-retention), purgeAtOnce)
	if err != nil || len(ids) == 0 {
		return err
	}
	return b.engine.Purge(ctx, ids)
}

func (b *backend) sweepInputs(ctx context.Context) error {
	users, err := b.staging.users()
	if err != nil {
		return err
	}
	for _, user := range users {
		depot, err := b.Staging(user)
		if err != nil {
			return err
		}
		keep, err := b.store.InputManifests(ctx, user)
		if err != nil {
			return err
		}
		if _, err := depot.Sweep(ctx, func(hash string) bool { return keep[hash] }, keepInputs); err != nil {
			return err
		}
	}
	return nil
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}
