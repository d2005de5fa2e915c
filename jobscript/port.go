package jobscript

import (
	"strconv"
	"strings"

	"github.com/openworkload/skyport"
)

// maxPorts bounds the listeners that one job can make core open.
const maxPorts = 256

// ports is a list separated by commas, with blanks or without.
type ports struct{}

func (ports) expects() string {
	return "ports such as 8888 or 8888/tcp/in,8081/tcp/out"
}

func (a ports) read(v value) {
	list := &v.p.request.Ports
	for at, rest := 0, v.text; ; {
		part, more, found := strings.Cut(rest, ",")
		port := strings.Trim(part, " \t")
		begin := at + len(part) - len(strings.TrimLeft(part, " \t"))
		p, ok := parsePort(port)
		switch {
		case strings.HasSuffix(port, "/udp") || strings.Contains(port, "/udp/"):
			v.fail(begin, "", "only tcp is forwarded, not %q", skyport.Abbreviate(port, 60))
		case !ok:
			v.refuse(begin, port, "a port from 1 to 65535, then /tcp or nothing, then /in, /out or nothing")
		case len(*list) >= maxPorts:
			v.fail(begin, "forward one port, and share it", "more than %d ports", maxPorts)
		case v.claim(strconv.Itoa(p.Number), begin, "port "+strconv.Itoa(p.Number), "a port is forwarded once, in one direction"):
			*list = append(*list, p)
		}
		if !found {
			return
		}
		at, rest = at+len(part)+1, more
	}
}

func parsePort(s string) (skyport.Port, bool) {
	digits, rest, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(digits)
	if err != nil || !isDigits(digits) || n < 1 || n > 65535 {
		return skyport.Port{}, false
	}
	switch {
	case s == digits || rest == "tcp" || rest == "tcp/in":
		return skyport.Port{Number: n, Direction: skyport.In}, true
	case rest == "tcp/out":
		return skyport.Port{Number: n, Direction: skyport.Out}, true
	}
	return skyport.Port{}, false
}

func (ports) write(r *request) []string {
	var list []string
	for _, p := range r.Ports {
		list = append(list, p.String())
	}
	return unlessEmpty(strings.Join(list, ","))
}

func (ports) clear(r *request) { r.Ports = nil }
