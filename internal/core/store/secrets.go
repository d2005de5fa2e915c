package store

import (
	"context"
	"time"

	"github.com/openworkload/skyport"
)

// Secret is something that a user gave us to keep, such as the login of a
// registry. The store has it sealed and cannot open it.
type Secret struct {
	Owner   skyport.UserID
	Kind    string
	Name    string
	Sealed  []byte
	Created time.Time
	Updated time.Time
}

const selectSecret = `SELECT owner, kind, name, sealed, created, updated FROM secrets` //nolint:gosec // SQL, no credential

func scanSecret(row scanner) (s Secret, err error) {
	var created, updated int64
	if err := row.Scan(&s.Owner, &s.Kind, &s.Name, &s.Sealed, &created, &updated); err != nil {
		return s, err
	}
	s.Created, s.Updated = moment(created), moment(updated)
	return s, nil
}

// PutSecret stores a secret, in place of the one of that owner, kind and name
// if there is one, and sets its times.
func (tx *Tx) PutSecret(s *Secret) error {
	now := tx.Now()
	s.Created, s.Updated = now, now
	earlier, err := one(tx.ctx, tx, scanSecret, errNoSecret(s.Kind, s.Name), selectSecret+oneSecret, s.Owner, s.Kind, s.Name)
	switch {
	case err == nil:
		s.Created = earlier.Created
	case skyport.CodeOf(err) != skyport.CodeNotFound:
		return err
	}
	return tx.exec(`INSERT INTO secrets (owner, kind, name, sealed, created, updated) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (owner, kind, name) DO UPDATE SET sealed = excluded.sealed, updated = excluded.updated`,
		s.Owner, s.Kind, s.Name, notNull(s.Sealed), micros(s.Created), micros(s.Updated))
}

// DeleteSecret deletes a secret; CodeNotFound when there is none.
func (tx *Tx) DeleteSecret(owner skyport.UserID, kind, name string) error {
	if _, err := one(tx.ctx, tx, scanSecret, errNoSecret(kind, name), selectSecret+oneSecret, owner, kind, name); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM secrets`+oneSecret, owner, kind, name)
}

// Secret returns a secret; CodeNotFound when there is none.
func (s *Store) Secret(ctx context.Context, owner skyport.UserID, kind, name string) (Secret, error) {
	return one(ctx, s, scanSecret, errNoSecret(kind, name), selectSecret+oneSecret, owner, kind, name)
}

// Secrets returns the secrets of an owner, all or those of one kind, in the
// order of their kinds and names.
func (s *Store) Secrets(ctx context.Context, owner skyport.UserID, kind string) ([]Secret, error) {
	w := where{}
	w.add("owner = ", owner)
	w.unlessZero("kind = ", kind)
	return many(ctx, s, scanSecret, selectSecret+w.String()+` ORDER BY kind, name`, w.args...)
}

// InsertPartitionKeys stores the keys of a partition, which has none yet.
func (tx *Tx) InsertPartitionKeys(id skyport.PartitionID, sealed []byte) error {
	return tx.exec(`INSERT INTO partition_keys (partition_id, sealed) VALUES ($1, $2)`, id, notNull(sealed))
}

// DeletePartitionKeys deletes the keys of a partition, if there are any.
func (tx *Tx) DeletePartitionKeys(id skyport.PartitionID) error {
	return tx.exec(`DELETE FROM partition_keys WHERE partition_id = $1`, id)
}

// PartitionKeys returns the sealed keys of a partition; CodeNotFound when it
// has none.
func (s *Store) PartitionKeys(ctx context.Context, id skyport.PartitionID) ([]byte, error) {
	scan := func(row scanner) (sealed []byte, err error) { return sealed, row.Scan(&sealed) }
	return one(ctx, s, scan, notFound("keys of partition", id), `SELECT sealed FROM partition_keys WHERE partition_id = $1`, id)
}

const oneSecret = ` WHERE owner = $1 AND kind = $2 AND name = $3` //nolint:gosec // SQL, no credential

func errNoSecret(kind, name string) error {
	return skyport.Errorf(skyport.CodeNotFound, "there is no secret %s %s", kind, name)
}

// notNull makes an empty value of none, which would be NULL.
func notNull(b []byte) []byte { return append([]byte{}, b...) }
