package core

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
)

// told makes events of words such as "Q@0": the state and the second, or the
// transferred bytes "+100@3".
func told(words string) (events []skyport.Event) {
	for _, word := range strings.Fields(words) {
		what, when, _ := strings.Cut(word, "@")
		var second int
		if _, err := fmt.Sscan(when, &second); err != nil {
			panic(err)
		}
		e := skyport.Event{Time: time.Unix(int64(second), 0), Kind: skyport.EventState, State: what}
		switch {
		case strings.HasPrefix(what, "+"):
			var n skyport.Bytes
			if _, err := fmt.Sscan(what[1:], (*int64)(&n)); err != nil {
				panic(err)
			}
			e.Kind, e.State, e.Transfer = skyport.EventTransfer, "T", &skyport.Transfer{Total: n}
		case strings.HasPrefix(what, "~"):
			e.Kind, e.State = skyport.EventDetails, what[1:]
		}
		events = append(events, e)
	}
	return events
}

func spell(steps []skyport.Step) string {
	var parts []string
	for _, s := range steps {
		part := fmt.Sprintf("%s %d-", s.Name, s.Start.Unix())
		if !s.End.IsZero() {
			part += fmt.Sprint(s.End.Unix())
		}
		if s.Bytes > 0 {
			part += fmt.Sprintf(" %dB", int64(s.Bytes))
		}
		if s.Note != "" {
			part += " (reused)"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func TestTimeline(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ job, partition, want string }{
		"nothing yet":      {"", "", ""},
		"queued":           {"Q@1", "", "queued 1-"},
		"details are none": {"Q@1 ~Q@2 ~Q@3", "", "queued 1-"},
		"waiting":          {"Q@1 W@2", "planned@2 creating@3", "queued 1-2, nodes 2-"},
		"a whole life": {
			"Q@1 W@2 T@5 +100@6 ~T@6 R@7 T@9 +50@10 F@11", "planned@2 creating@3 booting@4 busy@5 ready@11 draining@12 deleting@12 deleted@14",
			"queued 1-2, nodes 2-5, upload 5-7 100B, run 7-9, download 9-11 50B, removal 12-14",
		},
		"no files":                     {"Q@1 W@2 R@3 F@4", "", "queued 1-2, nodes 2-3, run 3-4"},
		"onto a ready partition":       {"Q@5 W@6 R@7 F@8", "ready@3 busy@6", "queued 5-6, nodes 6-7 (reused), run 7-8"},
		"onto a partition that worked": {"Q@5 W@6 R@7 F@8", "connecting@2 busy@3", "queued 5-6, nodes 6-7 (reused), run 7-8"},
		"canceled while it waited":     {"Q@1 W@2 C@3", "draining@3 deleting@4", "queued 1-2, nodes 2-3, removal 3-"},
		"canceled in the queue":        {"Q@1 C@3", "", "queued 1-3"},
		"a failed partition":           {"Q@1 W@2 E@3", "failed@3 deleting@4 deleted@5", "queued 1-2, nodes 2-3, removal 3-5"},
		"again":                        {"Q@1 W@2 R@3 T@4 +9@4 F@5 Q@6 W@7 R@8", "", "queued 6-7, nodes 7-8, run 8-"},
		"again, with inputs":           {"Q@1 W@2 T@3 R@4 Q@6 W@7 T@8", "", "queued 6-7, nodes 7-8, upload 8-"},
		"a clock that was set back":    {"Q@10 W@11 R@5 F@6", "draining@4 deleting@4 deleted@3", "queued 10-11, nodes 11-11, run 5-6, removal 4-4"},
		"a transfer before anything":   {"+5@1 Q@2", "", "queued 2-"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := spell(timeline(told(test.job), told(test.partition))); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
