// Command azure-emulator runs package azuretest as a process of its own: for
// tests that kill others, and to look at by hand. It writes what a gate needs to
// know of it as JSON to standard output, or to a file, and runs until it gets a
// signal.
package main
