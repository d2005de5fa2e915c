package storetest

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/store"
)

func secrets(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	put := func(owner skyport.UserID, kind, name, sealed string) store.Secret {
		t.Helper()
		secret := store.Secret{Owner: owner, Kind: kind, Name: name, Sealed: []byte(sealed)}
		must(t, s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutSecret(&secret) }))
		return secret
	}
	list := func(owner skyport.UserID, kind string) []store.Secret {
		t.Helper()
		all, err := s.Secrets(t.Context(), owner, kind)
		must(t, err)
		return all
	}
	remove := func(owner skyport.UserID, kind, name string) error {
		return s.Update(t.Context(), func(tx *store.Tx) error { return tx.DeleteSecret(owner, kind, name) })
	}
	first := put("alice", "registry", "b.example.org", "one")
	a := put("alice", "registry", "a.example.org:5000", "")
	other := put("alice", "other", "z", "three")
	put("bob", "registry", "b.example.org", "of bob")
	if first.Created.IsZero() || !first.Created.Equal(first.Updated) {
		t.Errorf("times are not set: %+v", first)
	}
	again := put("alice", "registry", "b.example.org", "two")
	if !again.Created.Equal(first.Created) || again.Updated.Before(first.Updated) {
		t.Errorf("put again: %+v after %+v", again, first)
	}
	must(t, s.Close())
	s = f.Open(t, nil)
	defer s.Close()
	got, err := s.Secret(t.Context(), "alice", "registry", "b.example.org")
	must(t, err)
	if diff := cmp.Diff(again, got); diff != "" {
		t.Errorf("secret (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]store.Secret{a, again}, list("alice", "registry"), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("secrets of one kind (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]store.Secret{other, a, again}, list("alice", ""), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("all secrets (-want +got):\n%s", diff)
	}
	if err := remove("carol", "registry", "b.example.org"); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("deleting what is another's: %v", err)
	}
	must(t, remove("alice", "registry", "b.example.org"))
	if _, err := s.Secret(t.Context(), "alice", "registry", "b.example.org"); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("a deleted secret: %v", err)
	}
	if got := list("bob", ""); len(got) != 1 || string(got[0].Sealed) != "of bob" {
		t.Errorf("another's secrets: %+v", got)
	}
}

func partitionKeys(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	id, other := skyport.NewPartitionID(), skyport.NewPartitionID()
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.InsertPartitionKeys(id, []byte("sealed")), tx.InsertPartitionKeys(other, []byte("others")))
	}))
	sealed, err := s.PartitionKeys(t.Context(), id)
	if err != nil || string(sealed) != "sealed" {
		t.Errorf("keys are %q, %v", sealed, err)
	}
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertPartitionKeys(id, []byte("again")) }); err == nil {
		t.Error("a partition's keys were replaced")
	}
	for range 2 { // the second time there are none
		must(t, s.Update(t.Context(), func(tx *store.Tx) error { return tx.DeletePartitionKeys(id) }))
	}
	if _, err := s.PartitionKeys(t.Context(), id); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("deleted keys: %v", err)
	}
	if sealed, err := s.PartitionKeys(t.Context(), other); err != nil || string(sealed) != "others" {
		t.Errorf("the keys of another partition: %q, %v", sealed, err)
	}
}

func lastOwner(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	a, b := newJob("first"), newJob("second")
	b.Owner = "1c8fb5f0-5bb5-4c3d-8e6e-6a9c0f3c5f50"
	insert(t, s, &a, &b)
	id := skyport.NewPartitionID()
	look := func(want skyport.UserID) {
		t.Helper()
		if got, err := s.LastOwner(t.Context(), id); err != nil || got != want {
			t.Errorf("the last owner is %q, %v; want %q", got, err, want)
		}
	}
	look("")
	for _, job := range []skyport.Job{a, b} {
		must(t, s.Update(t.Context(), func(tx *store.Tx) error {
			return tx.InsertAttempt(&skyport.Attempt{Job: job.ID, Number: 1, Partition: id})
		}))
		look(job.Owner)
	}
}
