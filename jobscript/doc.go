// Package jobscript reads what a job asks for out of its script: the lines
//
//	#SWM keyword value
//
// anywhere in the text. [Parse] turns them into a [skyport.Request]; [Format]
// turns a request into such lines again; [Keywords] lists every directive, from
// the one table that the parser itself works by.
//
// The package is pure: no files, no clock, no environment, so paths are checked
// as text only and names (of accounts, flavors, images) are not looked up. Every
// function may be called from many goroutines at once. Input is not trusted: any
// bytes give a request or [Errors], in time and memory proportional to the
// script, never a panic.
package jobscript
