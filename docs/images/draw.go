// Command images draws what a terminal showed as an SVG: the bytes of a
// session, colours and progress bars included, come on standard input, the
// picture goes to standard output.
//
//	script -qec 'skyport submit --follow job.sh' session.txt
//	go run ./docs/images <session.txt >docs/images/timeline.svg
//
// Blocks and bars are drawn as shapes, and every word stands at its own column,
// so the picture looks the same whatever font the reader has.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
)

// Sizes in SVG units.
const (
	columnWidth = 7.8
	lineHeight  = 19.0
	fontSize    = 13
	margin      = 22.0
	// mostInput bounds what is read: a screen, not a film.
	mostInput = 1 << 20
)

// colours by SGR number. Dim text is 2.
var colours = map[int]string{
	0: "#c9d1d9", 1: "#f0f6fc", 2: "#7d8590", 31: "#ff7b72", 32: "#3fb950", 33: "#e3b341", 36: "#58a6ff",
}

type cell struct {
	r     rune
	style int
}

func main() {
	input, err := io.ReadAll(io.LimitReader(os.Stdin, mostInput))
	if err != nil {
		log.Fatal(err)
	}
	out := bufio.NewWriter(os.Stdout)
	draw(out, screen(string(input)))
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}

// screen plays a session and returns the lines that are left at its end.
func screen(session string) [][]cell {
	lines := [][]cell{nil}
	row, column, style := 0, 0, 0
	for len(session) > 0 {
		if rest, ok := strings.CutPrefix(session, "\x1b["); ok {
			end := strings.IndexFunc(rest, func(r rune) bool { return r >= '@' && r <= '~' })
			if end < 0 {
				break
			}
			number, _ := strconv.Atoi(rest[:end]) // an absent number is 0
			switch rest[end] {
			case 'm':
				style = number
			case 'A':
				row = max(0, row-max(1, number))
			case 'J':
				lines = append(lines[:row], lines[row][:min(column, len(lines[row]))])
			}
			session = rest[end+1:]
			continue
		}
		r := []rune(session[:min(4, len(session))])[0]
		session = session[len(string(r)):]
		switch r {
		case '\r':
			column = 0
		case '\n':
			row++
			column = 0
			if row == len(lines) {
				lines = append(lines, nil)
			}
		default:
			for len(lines[row]) <= column {
				lines[row] = append(lines[row], cell{r: ' '})
			}
			lines[row][column] = cell{r, style}
			column++
		}
	}
	for len(lines) > 0 && len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func draw(w io.Writer, lines [][]cell) {
	columns := 0
	for _, line := range lines {
		columns = max(columns, len(line))
	}
	width, height := 2*margin+columnWidth*float64(columns), 2*margin+lineHeight*float64(len(lines))
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(w, "<title>What a terminal shows while skyport follows a job</title>\n")
	fmt.Fprintf(w, `<rect width="100%%" height="100%%" rx="10" fill="#0d1117"/>`+"\n")
	fmt.Fprintf(w, `<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="%d">`+"\n", fontSize)
	for i, line := range lines {
		drawLine(w, line, margin+lineHeight*float64(i))
	}
	fmt.Fprint(w, "</g>\n</svg>\n")
}

// drawLine draws runs of one style and kind: words as text, blocks as shapes.
func drawLine(w io.Writer, line []cell, top float64) {
	for from := 0; from < len(line); {
		to := from + 1
		for to < len(line) && line[to].style == line[from].style && kind(line[to].r) == kind(line[from].r) {
			to++
		}
		x, run := margin+columnWidth*float64(from), columnWidth*float64(to-from)
		colour := colours[line[from].style]
		if colour == "" {
			colour = colours[0]
		}
		switch kind(line[from].r) {
		case '█':
			fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" fill="%s"/>`+"\n", x, top+4, run, lineHeight-8, colour)
		case '━':
			fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="%.1f" height="3" rx="1.5" fill="%s"/>`+"\n", x, top+lineHeight/2-1.5, run, colours[36])
		case '▕':
			fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="1" height="%.1f" fill="#30363d"/>`+"\n", x+columnWidth-1, top+1, lineHeight-2)
		case '▏':
			fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="1" height="%.1f" fill="#30363d"/>`+"\n", x, top+1, lineHeight-2)
		case 'a':
			text := ""
			for _, c := range line[from:to] {
				text += string(c.r)
			}
			text = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
			fmt.Fprintf(w, `<text x="%.1f" y="%.1f" textLength="%.1f" fill="%s">%s</text>`+"\n", x, top+lineHeight-5.5, run, colour, text)
		}
		from = to
	}
}

// kind is how a character is drawn.
func kind(r rune) rune {
	switch r {
	case ' ', '█', '━', '▕', '▏':
		return r
	}
	return 'a'
}
