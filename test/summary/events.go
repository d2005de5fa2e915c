package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is one line of go test -json, as `go doc test2json` tells it.
type event struct {
	Action  string  `json:"Action"`
	Package string  `json:"Package"`
	Test    string  `json:"Test"`
	Elapsed float64 `json:"Elapsed"` // seconds
	Output  string  `json:"Output"`
}

// test names one test, or a whole package where its name is empty.
type test struct{ pkg, name string }

// over tells whether the event is the end of its test or package.
func (e event) over() bool { return e.Action == "pass" || e.Action == "fail" || e.Action == "skip" }

// taker takes events in order.
type taker interface{ take(e event) error }

// read hands all events to a taker. Lines that are no events, such as what a
// compiler says, come as output of no package.
func read(in io.Reader, to taker) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &e) != nil {
				e = event{Action: "output", Output: string(line)}
			}
			if err := to.take(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the events: %w", err)
		}
	}
}

// follower prints what a person wants to see while the tests run.
type follower struct {
	out  io.Writer
	said map[test][]string
}

func newFollower(out io.Writer) *follower { return &follower{out: out, said: map[test][]string{}} }

func (f *follower) take(e event) error {
	id := test{e.Package, e.Test}
	switch {
	case e.Action == "build-output", e.Action == "output" && e.Package == "":
		return f.print(e.Output)
	case e.Action == "output":
		f.said[id] = append(f.said[id], e.Output)
		return nil
	case !e.over():
		return nil
	}
	said := f.said[id]
	delete(f.said, id)
	switch {
	case e.Action == "fail" && e.Test == "":
		// Whoever was still running when the package broke down tells why.
		for id, unfinished := range f.said {
			if id.pkg != e.Package {
				continue
			}
			delete(f.said, id)
			if err := f.print(unfinished...); err != nil {
				return err
			}
		}
		return f.print(said...)
	case e.Action == "fail":
		return f.print(said...)
	case e.Test == "":
		return f.print(last(said)...)
	}
	return nil
}

// last is the line by which go test tells how a package passed.
func last(said []string) []string {
	for i, line := range said {
		if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") || strings.HasPrefix(line, "\t") {
			return said[i:]
		}
	}
	return nil
}

func (f *follower) print(lines ...string) error {
	if _, err := io.WriteString(f.out, strings.Join(lines, "")); err != nil {
		return fmt.Errorf("print what the tests said: %w", err)
	}
	return nil
}
