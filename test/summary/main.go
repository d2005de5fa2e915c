package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	ok, err := run(os.Args[1:], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run tells whether everything passed. What follow reads is judged by the
// report; follow itself fails only where it cannot read or write.
func run(args []string, in io.Reader, out io.Writer) (ok bool, err error) {
	if len(args) > 0 && args[0] == "follow" {
		return true, read(in, newFollower(out))
	}
	if len(args) == 0 || args[0] != "report" {
		return false, fmt.Errorf("say follow or report")
	}
	flags := flag.NewFlagSet("summary report", flag.ContinueOnError)
	events := flags.String("events", "", "file with the output of go test -json")
	cover := flags.String("cover", "", "file that go test -coverprofile wrote; none is no error")
	parts := flags.String("parts", "", "file with a line per part of make test: name, pass|fail|skip, seconds, reason, with tabs between")
	if err := flags.Parse(args[1:]); err != nil {
		return false, err
	}
	r := newReport()
	if err := readFile(*events, func(f io.Reader) error { return read(f, r) }); err != nil {
		return false, err
	}
	if err := readFile(*cover, r.coverage); err != nil {
		return false, err
	}
	if err := readFile(*parts, r.parts); err != nil {
		return false, err
	}
	return r.write(out)
}

// readFile reads nothing from a file that has no name or is not there: a part
// that did not come so far has failed already.
func readFile(path string, read func(io.Reader) error) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	return read(f)
}
