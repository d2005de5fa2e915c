// Package protocoltest has a worker for tests: it speaks the protocol over a
// unix socket, and its runs start, write, end and get lost when the test says
// so. No process is started. Only tests import it.
package protocoltest
