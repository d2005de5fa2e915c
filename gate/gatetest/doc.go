// Package gatetest checks providers and stands in for one.
//
// [Exercise] is the conformance suite: a provider's own test calls it with a
// way to make the provider, and learns whether core can rely on it. [Provider]
// is a provider in memory that follows a script, for tests of what is above
// providers: it passes the suite itself.
//
//	func TestConformance(t *testing.T) {
//		gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
//			dir := t.TempDir()
//			open := func(t *testing.T) gate.Provider { … }
//			return gatetest.Fixture{Provider: open(t), Site: "local", Flavor: "local.1", Remake: open}
//		})
//	}
package gatetest
