package core

import (
	"context"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
)

// Secrets lists what a user left with core.
func (b *backend) Secrets(ctx context.Context, owner skyport.UserID) ([]skyport.Secret, error) {
	return b.secrets.list(ctx, owner)
}

// Secret tells of one secret.
func (b *backend) Secret(ctx context.Context, owner skyport.UserID, kind, name string) (skyport.Secret, error) {
	return b.secrets.get(ctx, owner, kind, name)
}

// PutSecret keeps a secret.
func (b *backend) PutSecret(ctx context.Context, owner skyport.UserID, kind, name string, value api.SecretValue) (skyport.Secret, error) {
	return b.secrets.put(ctx, owner, kind, name, value)
}

// DeleteSecret forgets a secret.
func (b *backend) DeleteSecret(ctx context.Context, owner skyport.UserID, kind, name string) error {
	return b.secrets.delete(ctx, owner, kind, name)
}
