// Package docs holds the documentation to the code: every link leads to a file
// and a heading that are there, every command line names a command and flags
// that exist, and every metric and setting is described. It has tests only.
package docs
