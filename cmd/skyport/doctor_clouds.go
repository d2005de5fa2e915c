package main

import "github.com/openworkload/skyport/internal/spool"

// clouds looks whether the gate could read what its clouds are. Whether they
// are usable, skyport gate check tries: that asks them, and takes a while.
func (d *doctor) clouds(s *spool.Spool) {
	file, err := s.LoadGateFile()
	switch {
	case err != nil:
		d.fail("clouds", err)
	case len(file.Sites) == 0:
		d.ok("clouds", "none; %s would name them", s.GateFile())
	default:
		d.ok("clouds", "%s names %s; skyport gate check tries them", s.GateFile(), count(len(file.Sites), "site"))
	}
}
