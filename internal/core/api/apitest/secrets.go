package apitest

import (
	"cmp"
	"context"
	"slices"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
)

// Secrets implements [api.Backend].
func (b *Backend) Secrets(_ context.Context, owner skyport.UserID) ([]skyport.Secret, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []skyport.Secret
	for key, s := range b.secrets {
		if key.owner == owner {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(x, y skyport.Secret) int { return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name)) })
	return list, b.failing("Secrets")
}

// Secret implements [api.Backend].
func (b *Backend) Secret(_ context.Context, owner skyport.UserID, kind, name string) (skyport.Secret, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.secrets[secretKey{owner, kind, name}]; ok {
		return s, nil
	}
	return skyport.Secret{}, skyport.Errorf(skyport.CodeNotFound, "there is no secret %s %s", kind, name)
}

// PutSecret implements [api.Backend]. The value can be asked for by SecretValue.
func (b *Backend) PutSecret(_ context.Context, owner skyport.UserID, kind, name string, value api.SecretValue) (skyport.Secret, error) {
	if err := b.failing("PutSecret"); err != nil {
		return skyport.Secret{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.secrets == nil {
		b.secrets, b.values = map[secretKey]skyport.Secret{}, map[secretKey]api.SecretValue{}
	}
	key := secretKey{owner, kind, name}
	s := skyport.Secret{Kind: kind, Name: name, Username: value.Username, CA: value.CA != "", Created: b.now(), Updated: b.now()}
	if earlier, ok := b.secrets[key]; ok {
		s.Created = earlier.Created
	}
	b.secrets[key], b.values[key] = s, value
	return s, nil
}

// DeleteSecret implements [api.Backend].
func (b *Backend) DeleteSecret(ctx context.Context, owner skyport.UserID, kind, name string) error {
	if _, err := b.Secret(ctx, owner, kind, name); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.secrets, secretKey{owner, kind, name})
	delete(b.values, secretKey{owner, kind, name})
	return nil
}

// SecretValue is what was given as the value of a secret.
func (b *Backend) SecretValue(owner skyport.UserID, kind, name string) api.SecretValue {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.values[secretKey{owner, kind, name}]
}

type secretKey struct {
	owner      skyport.UserID
	kind, name string
}
