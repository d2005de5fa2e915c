// Package catalog knows what there is: sites, flavors and images as the gate
// tells them, and the accounts of the configuration. Everything is answered
// from memory, so a slow or absent gate slows nobody down. What was known last
// is remembered in the store and is good until the gate answers again.
package catalog
