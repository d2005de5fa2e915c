// Package schedule decides which job goes where. [Decide] is a pure function:
// a snapshot of queue and capacity in, a decision out. No clock, no I/O, no
// randomness: the same snapshot gives the same decision, so any decision can
// be explained, replayed and drawn by property tests.
//
// The rules, in order:
//
//  1. Jobs go by priority, then by age.
//  2. A job goes onto a partition of its account that fits and has room: one
//     that is ready before one that is still coming up.
//  3. Else a new partition: of the flavor that the job names, or of the
//     cheapest that fits, at a site of the account, within the site's limits.
//  4. Where idle partitions are what stands in the way, they are drained.
//  5. A job that does not fit now lets later ones pass, until it has waited for
//     longer than Patience: then nothing starts any more at a site that could
//     have the job. So small jobs fill gaps, and big ones do not starve.
//  6. Every job that stays has a reason that a person understands.
//  7. A partition that idles for longer than its keep-alive, and that no
//     waiting job got, is drained.
package schedule
