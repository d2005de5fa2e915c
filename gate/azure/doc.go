// Package azure makes partitions in Microsoft Azure: [New] opens one region of
// one subscription as a [cloud.Cloud].
//
// A partition is a resource group, tagged from its creation on, and one ARM
// deployment in it (template.json) that makes all the rest: so nothing needs to
// be remembered outside Azure, the deletion of the group removes everything,
// and a creation that was cut off goes on where Azure is. Private host keys
// reach Azure as a secure parameter only, which no deployment tells again.
//
// Every error is told apart by the code that Azure documents for it (errors.go):
// no capacity, quota, image, credentials, policy, throttling; all others pass.
package azure
