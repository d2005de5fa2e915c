// Command opticks is the program of the example job: it counts the words of a
// text and the pairs of neighbouring words, ranks them, writes words.csv,
// pairs.csv and a bar chart words.svg, and meanwhile serves its progress over
// HTTP. It is an ordinary program: nothing in it knows Sky Port.
package main

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

func main() {
	text := flag.String("text", "Isaac.Newton-Opticks.txt", "the text to read")
	listen := flag.String("listen", "127.0.0.1:8087", "where to serve the progress")
	linger := flag.Duration("linger", 10*time.Second, "how long to wait at the end for somebody to read the progress once")
	flag.Parse()
	log.SetFlags(0)
	if err := run(*text, *listen, *linger); err != nil {
		log.Fatal("opticks: ", err)
	}
}

// progress is what is served while the program counts.
type progress struct {
	Bytes    int64 `json:"bytes"`
	Total    int64 `json:"total"`
	Words    int64 `json:"words"`
	Distinct int64 `json:"distinct"`
	Done     bool  `json:"done"`
}

func run(text, listen string, linger time.Duration) error {
	var now atomic.Pointer[progress]
	now.Store(&progress{})
	read := make(chan struct{}, 1)
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(now.Load()) // a reader that went away is no concern
		select {
		case read <- struct{}{}:
		default:
		}
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Println("progress on http://" + listener.Addr().String())

	words, pairs, err := count(text, func(p progress) { now.Store(&p) })
	if err != nil {
		return err
	}
	if err := errors.Join(
		writeCSV("words.csv", "word", words), writeCSV("pairs.csv", "pair", pairs), writeSVG("words.svg", words[:min(20, len(words))]),
	); err != nil {
		return err
	}
	for i, w := range words[:min(5, len(words))] {
		fmt.Printf("%2d. %-8s %6d\n", i+1, w.text, w.count)
	}
	select {
	case <-read:
	case <-time.After(linger):
		fmt.Fprintln(os.Stderr, "nobody read the progress")
	}
	return errors.Join(server.Close(), ignoreClosed(<-served))
}

type ranked struct {
	text  string
	count int
}

// count reads the text. A word is a run of ASCII letters, in lower case;
// neighbours are words that follow one another, over line ends too.
func count(path string, report func(progress)) (words, pairs []ranked, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	p := progress{Total: info.Size()}
	byWord, byPair := map[string]int{}, map[string]int{}
	var word strings.Builder
	last := ""
	flush := func() {
		if word.Len() == 0 {
			return
		}
		w := word.String()
		word.Reset()
		p.Words++
		byWord[w]++
		if last != "" {
			byPair[last+" "+w]++
		}
		last = w
	}
	in := bufio.NewReader(f)
	for {
		c, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		p.Bytes++
		switch {
		case c >= 'A' && c <= 'Z':
			word.WriteByte(c + 'a' - 'A')
		case c >= 'a' && c <= 'z':
			word.WriteByte(c)
		default:
			flush()
		}
		if p.Bytes%(32<<10) == 0 {
			p.Distinct = int64(len(byWord))
			report(p)
		}
	}
	flush()
	p.Distinct, p.Done = int64(len(byWord)), true
	report(p)
	return rank(byWord), rank(byPair), nil
}

func rank(counts map[string]int) []ranked {
	list := make([]ranked, 0, len(counts))
	for text, n := range counts {
		list = append(list, ranked{text, n})
	}
	slices.SortFunc(list, func(a, b ranked) int { return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.text, b.text)) })
	return list
}

func writeCSV(path, title string, list []ranked) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	rows := [][]string{{"rank", title, "count"}}
	for i, r := range list {
		rows = append(rows, []string{strconv.Itoa(i + 1), r.text, strconv.Itoa(r.count)})
	}
	return errors.Join(w.WriteAll(rows), f.Close())
}

func writeSVG(path string, list []ranked) error {
	const rowHeight, left, width = 24, 90, 560
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", left+width+70, rowHeight*len(list)+50)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	b.WriteString(`<text x="10" y="24" font-size="16" font-weight="bold">The most frequent words of Opticks</text>` + "\n")
	for i, r := range list {
		y, length := 40+i*rowHeight, r.count*width/max(1, list[0].count)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+16, html.EscapeString(r.text))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="#2a6fbb"/>`, left, y+3, length, rowHeight-6)
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#444">%d</text>`+"\n", left+length+6, y+16, r.count)
	}
	b.WriteString("</svg>\n")
	return os.WriteFile(path, []byte(b.String()), 0o644) //nolint:gosec // a picture, for everybody
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
