// Package pki makes, keeps and checks the certificates of Sky Port.
//
// A grid CA (the root) signs a cluster CA (the intermediate), which signs the
// leaves: one certificate for core, one for the gate, one for each user. All
// keys are ECDSA P-256, in PEM files of mode 0600 in directories of mode 0700.
// A CA key is read on the machine of the setup only and is never sent anywhere.
//
// Who a certificate speaks for is written in it twice, so that no single
// mistake lets one part pass for another. The extended key usage says which
// end of a connection it may be: a user only a client, a gate only a server,
// core both (it serves terminals and calls the gate). A SAN URI names the role,
// [RoleCore] as skyport:role/core. [Reloader.Verify] asks for both. A user's id
// is a UUID in the subject, attribute 2.5.29.17 (existing terminals know that
// place), and in a SAN URI urn:uuid:…; one is enough, two must agree.
//
// Files appear whole or not at all, and a file that exists is never written
// over, except a leaf certificate by its renewal: the key stays the same, so
// that one rename exchanges the whole. The names of the CAs are made of their
// keys: a CA certificate that was lost and made anew still fits its leaves.
//
// A [Reloader] may be used by any number of connections at once; it takes up
// changed files without a restart and keeps the old ones while new ones are
// unusable. Everything else here is plain functions on files.
package pki
