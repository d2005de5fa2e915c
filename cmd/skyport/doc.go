// Command skyport is Sky Port on the user's side: the terminal for the shell,
// and the daemons core and gate.
//
// The command line is thin. Each command has a file of its own: its options,
// its flags, and one run function that turns them into calls of package client
// and prints the answer. What commands share is in few places: app.go knows
// where the spool and core are, root.go puts the commands together, output.go
// knows how things look, exit.go how a command ends.
//
// What programs may rely on: with --json standard output holds JSON of a stable
// shape and nothing else, everything for people goes to standard error then;
// exit codes mean what `skyport help exit-codes` says. docs/cli.md is made from
// the commands themselves and a test keeps it so.
package main
