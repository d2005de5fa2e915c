// Package azuretest is an emulator of Azure Resource Manager for tests: it speaks
// the wire format of the calls that gate/azure makes, over HTTPS with a
// certificate of its own authority, so that the real SDK works against it.
//
// Deployments are really evaluated (package template), operations are
// asynchronous, and it can be told to throttle, to fail, to lose answers after
// having done the work, to show stale lists, to have no capacity and to take back
// spot machines: see [Faults]. Its virtual machines are nothing at all
// ([Nothing]) or nodes of the Docker gate that boot their user data by real
// cloud-init ([Docker]).
//
// The rule is: reality wins. Shapes are encoded by the SDK's own models; comments
// cite the reference that an answer follows.
package azuretest
