package main

import "log"

// child runs a part of the bench that needs a process of its own, when the
// arguments ask for one.
func child(args []string) bool {
	var err error
	switch {
	case len(args) == 3 && args[0] == "receive":
		err = receive(args[1], args[2])
	case len(args) == 2 && args[0] == "serve":
		err = serveJob(args[1])
	case len(args) == 1 && args[0] == "remote":
		err = remoteChild()
	default:
		return false
	}
	if err != nil {
		log.Fatal(err)
	}
	return true
}
