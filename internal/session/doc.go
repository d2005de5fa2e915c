// Package session carries a command that runs elsewhere over one connection:
// its standard streams, the size of its terminal, signals, and how it ended.
//
// Everything is frames: one byte says what it is, four how long it is (at most
// 64 KiB, the first frame 1 MiB), then the payload. Call is the end of who wants
// the command, Serve the end that runs it; who stands between only moves bytes.
//
//	caller -> server   open (JSON, once, first), stdin, stdin-closed, resize, signal
//	server -> caller   stdout, stderr, window, exit (JSON, once, last)
//
// A slow reader of the output blocks the command: that is TCP's flow control.
// Input is sent only as far as the server made room for it (window), so signals
// and sizes are never stuck behind input that the command does not read. A peer
// that breaks the rules ends the session, and costs bounded memory.
package session
