// Package architecture holds the house in order: its tests fail when a room
// imports another that it must not know, when a package does not say what it is
// for, and when something is named after its shape. The picture that they hold
// is in docs/architecture.md; whoever adds a room adds it there and to rooms.
package architecture
