package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/openworkload/skyport"
)

// screen is a stream for people. It knows whether somebody is watching, and
// remembers the first error of writing, so that a command may print as it goes
// and return err at its end.
type screen struct {
	w      io.Writer
	live   bool // a terminal that can redraw lines
	colour bool
	width  int // columns; 0: lines are never cut

	mu  sync.Mutex // writers may be several: events and logs of a job
	err error
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return s
	}
	var height int
	var err error
	if s.width, height, err = term.GetSize(int(f.Fd())); err != nil {
		s.width = 0
	}
	s.live = os.Getenv("TERM") != "dumb" && s.width > 0 && height > 0
	s.colour = s.live && os.Getenv("NO_COLOR") == ""
	return s
}

// Write writes bytes as they are, such as the output of a job.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.w.Write(p)
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("write the output: %w", err)
	}
	return n, err //nolint:wrapcheck // a writer's error as it is; kept wrapped
}

// failed is the first error of writing, or nil.
func (s *screen) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *screen) printf(format string, args ...any) {
	fmt.Fprintf(s, format, args...) //nolint:errcheck // kept in s.err
}

// style is the parameter of an ANSI sequence.
type style string

const (
	bold   style = "1"
	faint  style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	blue   style = "34"
	cyan   style = "36"
)

func (s *screen) paint(st style, text string) string {
	if !s.colour || st == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

// plain takes from a text what could command a terminal: texts of nodes, sites
// and scripts are shown, never obeyed.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return '·'
		}
		return r
	}, strings.ToValidUTF8(text, "·"))
}

// oneLine is plain for a cell of a table.
func oneLine(text string) string { return strings.Join(strings.Fields(plain(text)), " ") }

// width is how many columns the first n characters of a line take.
func width(line string, n int) int {
	columns := 0
	for _, r := range line {
		if n--; n < 0 {
			break
		}
		columns += max(1, runewidth.RuneWidth(r))
	}
	return columns
}

// pad puts blanks before a short text.
func pad(s string, width int) string { return runewidth.FillLeft(s, width) }

// printJSON prints a value for programs.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// printJSONLine prints a value as one line: one of a stream.
func (a *app) printJSONLine(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// list is a slice that prints as [] when it is empty: lists are arrays.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// table lines texts up in columns. On a terminal it fits the width: first it
// leaves out the columns that matter least, then it cuts the flexible ones.
// Elsewhere nothing is left out or cut.
type table struct {
	columns []column
	rows    [][]cell
	empty   string // said in place of a table without rows
}

type column struct {
	title string
	right bool // numbers line up at the right
	flex  bool // may be cut
	rank  int  // above 0: may be left out, higher ranks earlier
}

type cell struct {
	text  string
	style style
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// text is a cell without a style.
func text(s string) cell { return cell{text: s} }

const (
	gap     = 2  // blanks between columns
	flexMin = 10 // a flexible column is not cut below this
)

func (t *table) print(s *screen) {
	if len(t.rows) == 0 {
		if t.empty != "" {
			s.printf("%s\n", t.empty)
		}
		return
	}
	for _, row := range t.rows {
		for i := range row {
			row[i].text = oneLine(row[i].text)
		}
	}
	shown, widths := t.fit(s.width)
	header := make([]cell, len(t.columns))
	for i, c := range t.columns {
		header[i] = cell{c.title, bold}
	}
	for _, row := range slices.Insert(slices.Clone(t.rows), 0, header) {
		s.printf("%s\n", t.line(s, row, shown, widths))
	}
}

// fit chooses the columns to show and how wide each is.
func (t *table) fit(width int) (shown, widths []int) {
	widths = make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = runewidth.StringWidth(c.title)
		for _, row := range t.rows {
			widths[i] = max(widths[i], runewidth.StringWidth(row[i].text))
		}
		shown = append(shown, i)
	}
	if width <= 0 {
		return shown, widths
	}
	// excess is how much too wide the table is, when flexible columns are as
	// narrow as they may be, or as wide as they like.
	excess := func(narrow bool) int {
		total := -gap
		for _, i := range shown {
			w := widths[i]
			if narrow && t.columns[i].flex {
				w = min(w, flexMin)
			}
			total += w + gap
		}
		return total - width
	}
	for excess(true) > 0 {
		least := -1
		for _, i := range shown {
			if t.columns[i].rank > 0 && (least < 0 || t.columns[i].rank > t.columns[least].rank) {
				least = i
			}
		}
		if least < 0 {
			break
		}
		shown = slices.DeleteFunc(shown, func(i int) bool { return i == least })
	}
	for excess(false) > 0 {
		widest := -1
		for _, i := range shown {
			if t.columns[i].flex && widths[i] > flexMin && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return shown, widths
}

func (t *table) line(s *screen, row []cell, shown, widths []int) string {
	var b strings.Builder
	for n, i := range shown {
		content := runewidth.Truncate(row[i].text, widths[i], "…")
		pad := strings.Repeat(" ", max(0, widths[i]-runewidth.StringWidth(content)))
		painted := s.paint(row[i].style, content)
		switch {
		case t.columns[i].right:
			b.WriteString(pad + painted)
		case n == len(shown)-1:
			b.WriteString(painted)
		default:
			b.WriteString(painted + pad)
		}
		if n < len(shown)-1 {
			b.WriteString(strings.Repeat(" ", gap))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// duration spells a length of time in at most two units: 350ms, 1.2s, 3m12s,
// 2h05m, 4d03h.
func duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// age spells how long ago something was, in one unit.
func age(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "-"
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// count spells a number with its thing: 1 file, 2 files.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// price spells a price per hour.
func price(p float64) string {
	if p == 0 {
		return "free"
	}
	return fmt.Sprintf("%.4g/h", p)
}

// stateStyle is the colour of a job's state.
func stateStyle(s skyport.JobState) style {
	switch s {
	case skyport.JobRunning:
		return green
	case skyport.JobFailed:
		return red
	case skyport.JobCanceled:
		return yellow
	case skyport.JobWaiting, skyport.JobTransferring:
		return cyan
	}
	return ""
}

// progress shows one transfer: a bar where somebody watches, elsewhere at most
// one line for a second and only when another tenth is done. It is not safe
// for concurrent use.
type progress struct {
	screen *screen
	name   string
	now    func() time.Time

	bars *mpb.Progress
	bar  *mpb.Bar

	begun      time.Time
	last       time.Time
	lastTenths int64
	done       skyport.Bytes
	total      skyport.Bytes
}

// newProgress begins to show a transfer, such as "upload inputs".
func (a *app) newProgress(name string) *progress {
	p := &progress{screen: a.Err, name: name, now: a.Now, begun: a.Now(), lastTenths: -1}
	if a.Err.live && !a.JSON {
		p.bars = mpb.New(mpb.WithOutput(a.Err.w), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond))
		p.bar = p.bars.New(0, mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("─"),
			mpb.PrependDecorators(decor.Name("  "+name+"  ")),
			mpb.AppendDecorators(
				decor.Any(func(decor.Statistics) string { return " " }),
				decor.CountersKibiByte("% .1f / % .1f"),
				decor.Name("  "),
				decor.AverageSpeed(decor.SizeB1024(0), "% .1f"),
			),
		)
	}
	return p
}

// update tells how far the transfer is.
func (p *progress) update(done, total skyport.Bytes) {
	p.done, p.total = done, total
	if p.bar != nil {
		p.bar.SetTotal(int64(total), false)
		p.bar.SetCurrent(int64(done))
		return
	}
	now := p.now()
	tenths := int64(10)
	if total > 0 {
		tenths = int64(done) * 10 / int64(total)
	}
	if tenths >= 10 || tenths == p.lastTenths || now.Sub(p.last) < time.Second {
		return // the end has a line of its own
	}
	if p.last.IsZero() {
		p.last, p.lastTenths = now, 0
		return // short transfers are told once, at their end
	}
	p.last, p.lastTenths = now, tenths
	p.screen.printf("%s: %d%% of %s\n", p.name, tenths*10, total)
}

// end takes the bar away and leaves one line that says what was moved; a
// transfer that failed leaves none.
func (p *progress) end(ok bool) {
	if p.bar != nil {
		if ok {
			p.bar.SetTotal(max(int64(p.total), 1), false)
			p.bar.SetCurrent(max(int64(p.total), 1))
			p.bar.SetTotal(-1, true)
		} else {
			p.bar.Abort(false)
		}
		p.bars.Wait()
		return
	}
	if ok {
		p.screen.printf("%s: %s in %s\n", p.name, p.done, duration(p.now().Sub(p.begun)))
	}
}
