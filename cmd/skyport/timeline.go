package main

import (
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/openworkload/skyport"
)

// timelineBar is how many columns the time from the first step to the last takes.
const timelineBar = 32

// printTimeline draws the stretches of a job's life below each other, each at
// its place in time.
func printTimeline(s *screen, steps []skyport.Step, now time.Time) {
	if len(steps) == 0 {
		return
	}
	begin, end := steps[0].Start, steps[0].Start
	names := 0
	for _, step := range steps {
		if step.Start.Before(begin) {
			begin = step.Start
		}
		if e := stepEnd(step, now); e.After(end) {
			end = e
		}
		names = max(names, runewidth.StringWidth(oneLine(step.Name)))
	}
	whole := end.Sub(begin)
	for _, step := range steps {
		from, to := scale(step.Start.Sub(begin), whole), scale(stepEnd(step, now).Sub(begin), whole)
		from = min(from, timelineBar-1)
		length := max(1, to-from) // the shortest step is seen, too
		bar := strings.Repeat(" ", from) +
			s.paint(stepStyle(step.Name), strings.Repeat("█", length)) +
			strings.Repeat(" ", timelineBar-from-length)
		took := duration(stepEnd(step, now).Sub(step.Start))
		if step.End.IsZero() {
			took += "…"
		}
		var notes []string
		if step.Bytes > 0 {
			notes = append(notes, step.Bytes.String())
		}
		if step.Note != "" {
			notes = append(notes, oneLine(step.Note))
		}
		line := "  " + runewidth.FillRight(oneLine(step.Name), names) + "  ▕" + bar + "▏ " + runewidth.FillLeft(took, 7)
		if len(notes) > 0 {
			line += "  " + s.paint(faint, strings.Join(notes, ", "))
		}
		s.printf("%s\n", line)
	}
	s.printf("  %s   %s  %s\n", strings.Repeat(" ", names), strings.Repeat(" ", timelineBar), runewidth.FillLeft(duration(whole), 7))
}

// stepEnd is when a step ended, or now while it goes on.
func stepEnd(step skyport.Step, now time.Time) time.Time {
	switch {
	case !step.End.IsZero():
		return step.End
	case now.Before(step.Start): // clocks differ
		return step.Start
	}
	return now
}

func scale(d, whole time.Duration) int {
	if whole <= 0 {
		return 0
	}
	return int((float64(d)/float64(whole))*timelineBar + 0.5)
}

func stepStyle(name string) style {
	switch name {
	case "queued", "removal":
		return faint
	case "nodes":
		return yellow
	case "upload", "download":
		return cyan
	case "run":
		return green
	}
	return ""
}
