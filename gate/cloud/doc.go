// Package cloud is what the providers of all clouds have alike: [Provider] makes
// a [gate.Provider] of what a kind of cloud implements, the smaller [Cloud].
//
// The provider owns what is easy to get wrong and the same everywhere: one
// creation or removal at a time for each partition, callers who come again join
// it; a creation that failed is rolled back whole and its reason is told until
// the partition is deleted; removals are tried until the cloud's lists agree,
// also those that an earlier gate has left; throttling is obeyed; one listing
// serves all who ask; flavors and images come from a cache that is on disk and
// is refreshed in the background. All that must outlive the process is in the
// cloud's own tags ([Tags]), never in a file.
//
// A kind of cloud knows its API, and nothing of this. Package cloudtest has one in
// memory, with the faults of real ones.
package cloud
