// Package openstack tries the whole life of jobs in a real OpenStack: keystone,
// glance, placement, nova and neutron as Debian packages them, whose zone qemu
// boots real guests in software emulation. cloud/ brings that cloud up on this
// machine; run.sh (make test-openstack) brings it up, runs everything, and takes
// it down.
//
// The tests here drive the real program: jobs on clusters that the cloud's own API
// makes, with nothing but port 22 of a floating address to reach them. Each test
// has a project of its own, so that what is left in the end is all that is in it.
//
// Without SKYPORT_TEST_OPENSTACK, the name of an entry of clouds.yaml, they are
// skipped.
package openstack
