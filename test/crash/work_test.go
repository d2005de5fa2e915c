package crash

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// An act is what a person does to a job of theirs meanwhile.
type act string

const (
	actNone    act = ""
	actCancel  act = "canceled"
	actRequeue act = "requeued"
	actAgain   act = "requeued at its end"
)

// work is a job to be, all of it drawn from the seed and its number.
type work struct {
	number  int
	lines   int  // of each log
	width   int  // of each line, at least
	pauses  int  // of a twentieth of a second, spread over the lines
	input   int  // bytes; 0: neither inputs nor outputs
	missing bool // names an output that it does not make
	exit    int
	limit   bool // runs into its time limit
	retries int
	shared  bool // may meet others on a node that is kept for a moment
	port    bool
	act     act
	after   time.Duration // of the act
	random  uint64        // of its input

	ledger string // the script writes here that it has begun and ended
	path   string // of the input

	// What became of it.
	id        skyport.JobID
	canceled  bool // by an answer
	requeues  int  // at most
	judged    bool
	doneLines int // lines of the ledger when it was judged
}

func (h *house) newWork() *work {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.works)
	random := rand.New(rand.NewPCG(*seed, 1000+uint64(n)))
	chance := func(percent int) bool { return random.IntN(100) < percent }
	w := &work{
		number: n, lines: 20 + random.IntN(80), pauses: 4 + random.IntN(24), random: random.Uint64(),
		ledger: h.path("ledger", strconv.Itoa(n)), path: h.path("inputs", fmt.Sprintf("in-%d", n)),
	}
	if chance(80) {
		w.input = 1 + random.IntN(1<<uint(10+random.IntN(12))) // up to 2 MiB, mostly far less
		w.missing = chance(15)
	}
	if chance(15) {
		w.lines, w.width = 2000, 60
	}
	if chance(25) {
		w.exit = 1 + random.IntN(100)
	}
	w.retries = []int{0, 0, 1, 2, 9}[random.IntN(5)]
	w.shared, w.port = chance(25), chance(25)
	switch {
	case chance(12):
		w.act = actCancel
	case chance(12):
		w.act, w.retries = actRequeue, 9
	case chance(5):
		w.act, w.retries = actAgain, 9
	case chance(10):
		w.limit, w.pauses = true, 4
	}
	w.after = time.Duration(random.Int64N(int64(3 * time.Second)))
	h.works = append(h.works, w)
	return w
}

func (w *work) String() string {
	said := []string{fmt.Sprintf("number %d: %d lines, %d pauses, input of %d bytes, %d retries", w.number, w.lines, w.pauses, w.input, w.retries)}
	for word, is := range map[string]bool{
		"ends at its limit": w.limit, "shares a node": w.shared, "has a port": w.port, "misses an output": w.missing,
		fmt.Sprintf("exits with %d", w.exit): w.exit != 0, fmt.Sprintf("%s after %s", w.act, w.after): w.act != actNone,
	} {
		if is {
			said = append(said, word)
		}
	}
	return strings.Join(said, ", ")
}

// name makes the job known when its id is not.
func (w *work) name() string { return fmt.Sprintf("crash-%d", w.number) }

// script is the job's script. Whatever it writes can be foretold.
func (h *house) script(w *work) []byte {
	var b bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	shell, directives, mark := h.site.script(w)
	say("#!%s", shell)
	say("#SWM name %s", w.name())
	say("#SWM cpus 1\n#SWM memory 64M")
	say("#SWM retries %d", w.retries)
	for _, d := range directives {
		say("#SWM %s", d)
	}
	if w.input > 0 {
		say("#SWM input-files %s", w.path)
		say("#SWM output-files result tree")
	}
	if w.missing {
		say("#SWM output-files never")
	}
	if w.limit {
		say("#SWM time 0:00:02")
	}
	if w.port {
		say("#SWM ports 7070/tcp/in")
	}
	say("mark() {\n  %s\n}", mark)
	say("mark begin")
	if w.input > 0 {
		say(`mkdir -p tree/empty`)
		say(`LC_ALL=C tr '\000-\377' '\001-\377\000' <%s >result`, filepath.Base(w.path))
		say(`sha256sum <result >tree/sum`)
	}
	pad := strings.Repeat(".", w.width)
	say("i=0\nwhile [ $i -lt %d ]; do", w.lines)
	say("  i=$((i + 1))\n  echo \"out $i %s\"\n  echo \"err $i %s\" >&2", pad, pad)
	say("  [ $((i %% %d)) != 0 ] || sleep 0.05", max(1, w.lines/w.pauses))
	say("done")
	if w.limit {
		say("exec sleep 600")
	}
	say("mark end")
	say("exit %d", w.exit)
	return b.Bytes()
}

// log is what the script writes to a stream.
func (w *work) log(word string) []byte {
	var b bytes.Buffer
	pad := strings.Repeat(".", w.width)
	for i := range w.lines {
		fmt.Fprintf(&b, "%s %d %s\n", word, i+1, pad)
	}
	return b.Bytes()
}

// content is what is in the input.
func (w *work) content() []byte {
	text := make([]byte, w.input)
	random := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%032x", w.random))))
	_, _ = random.Read(text) // never fails
	return text
}

// result is what the script makes of it.
func (w *work) result() []byte {
	text := w.content()
	for i := range text {
		text[i]++
	}
	return text
}

// A line of the ledger.
type entry struct {
	word    string
	attempt int
}

// read returns what the scripts of the job wrote.
func (w *work) read() (entries []entry, err error) {
	text, err := os.ReadFile(w.ledger)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("the ledger has a line %q", line)
		}
		job, number, _ := strings.Cut(fields[1], ".")
		attempt, err := strconv.Atoi(number)
		if err != nil || (w.id != "" && job != string(w.id)) {
			return nil, fmt.Errorf("the ledger has a line %q", line)
		}
		entries = append(entries, entry{fields[0], attempt})
	}
	return entries, nil
}

func (w *work) begun() (attempts []int) {
	entries, _ := w.read() // for people; the judge looks closer
	for _, e := range entries {
		if e.word == "begin" {
			attempts = append(attempts, e.attempt)
		}
	}
	return attempts
}

func (h *house) submission(w *work) client.Submission {
	return client.Submission{Script: h.script(w), Key: fmt.Sprintf("crash-%d-%d", *seed, w.number)}
}

// submit brings a job to core as a terminal does.
func (h *house) submit(ctx context.Context, w *work) error {
	if _, err := os.Stat(w.path); w.input > 0 && err != nil { // the same file again is the same submission
		if err := os.WriteFile(w.path, w.content(), 0o600); err != nil {
			return err
		}
	}
	job, err := h.user.Submit(ctx, h.submission(w))
	h.mu.Lock()
	w.id = job.ID
	h.mu.Unlock()
	return err
}

// killAfterAnswer kills core as soon as it has accepted a job.
func (h *house) killAfterAnswer(ctx context.Context) {
	select {
	case h.room <- struct{}{}:
	case <-ctx.Done():
		return
	}
	w := h.newWork()
	err := h.submit(ctx, w)
	h.core.kill()
	h.jobs.Go(func() {
		defer func() { <-h.room }()
		if err != nil {
			h.fail(ctx, w, "submit: %v", err)
			return
		}
		h.live(ctx, w)
	})
}

// killBeforeAnswer kills core while a submission may be on its way. The one who
// submits does not wait for the answer, and submits the same again.
func (h *house) killBeforeAnswer(ctx context.Context, after time.Duration) {
	select {
	case h.room <- struct{}{}:
	case <-ctx.Done():
		return
	}
	w := h.newWork()
	first, cancel := context.WithCancel(ctx)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_ = h.submit(first, w) // whatever it says, nobody has heard it
	}()
	rest(ctx, after)
	h.core.kill()
	cancel()
	<-answered
	h.jobs.Go(func() {
		defer func() { <-h.room }()
		if err := h.submit(ctx, w); err != nil {
			h.fail(ctx, w, "submit again: %v", err)
			return
		}
		h.live(ctx, w)
	})
}

// live does to a job what is meant for it, and judges what became of it.
func (h *house) live(ctx context.Context, w *work) {
	switch w.act {
	case actCancel:
		rest(ctx, w.after)
		switch _, err := h.user.Cancel(ctx, w.id); {
		case err == nil:
			w.canceled = true
		case skyport.CodeOf(err) != skyport.CodeConflict: // it has ended already
			h.fail(ctx, w, "cancel: %v", err)
			return
		}
	case actRequeue:
		rest(ctx, w.after)
		h.requeue(ctx, w)
	case actAgain:
		if _, ok := h.await(ctx, w); !ok {
			return
		}
		h.requeue(ctx, w)
	}
	if job, ok := h.await(ctx, w); ok {
		h.judge(ctx, w, &job)
	}
}

// requeue asks for a new attempt, once: when the answer is lost there may be
// one or not.
func (h *house) requeue(ctx context.Context, w *work) {
	w.requeues++
	if _, err := h.user.Requeue(ctx, w.id); err != nil && skyport.CodeOf(err) != skyport.CodeUnavailable {
		h.fail(ctx, w, "requeue: %v", err)
	}
}

func (h *house) await(ctx context.Context, w *work) (skyport.Job, bool) {
	waiting, cancel := context.WithTimeout(ctx, h.lifeTime)
	defer cancel()
	job, err := h.user.Wait(waiting, w.id)
	if err != nil {
		h.fail(ctx, w, "does not end: %v", err)
	}
	return job, err == nil
}
