// Package live lets the sites of a gate come, change and go while it serves.
//
// [Open] reads which sites are wanted and opens each with a provider of its own,
// so that a change of one disturbs no other; [Sites.Run] looks for changes. The
// server is given one provider for each kind. What a configuration is, is the
// caller's: here it is only compared.
//
// Promises. A site never has two providers at once: the old one is closed after
// the calls under way, and what it was doing goes on in the new one, as after a
// restart. A configuration that cannot be read, or a site that cannot be
// opened, changes nothing, is logged once and told where sites are listed. A
// site that is wanted no more takes no new partitions, and is kept until it is
// empty: else nobody would remove what is there.
package live
