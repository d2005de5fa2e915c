// Package seal keeps secrets out of the database in the clear: the keys of
// partitions and the credentials of users.
//
// One key of 32 random bytes lies in a file of its own, mode 0600, beside the
// database and not in it. [Open] makes it once and never writes over it. What
// [Sealer.Seal] returns can be opened with the same key and the same context
// only: the context, such as "partition/<id>", says what the box is for, so
// that nobody who can write to the database can put one box in the place of
// another. The cipher is XChaCha20-Poly1305 with a random nonce; the first byte
// of a box is the version of its format.
package seal
