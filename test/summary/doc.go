// Command summary makes the output of go test -json readable, and says at the
// end of make test what became of everything:
//
//	go test -json ./... | tee events | summary follow
//	summary report -events events -cover coverage.out -parts parts
//
// Follow prints each package's line when the package ends, as go test does, and
// everything that a failed test has printed. Report prints a table of the
// packages with their coverage, the slowest tests, each skipped test with its
// reason, each failure, and as its last line "N passed, N failed, N skipped",
// in which each test, subtests too, and each part of make test counts as one.
// It ends with code 1 when anything failed or no test ran.
package main
