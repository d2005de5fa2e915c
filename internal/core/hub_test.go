package core

import (
	"fmt"
	"sync"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
)

func numbered(from, to int64) (events []skyport.Event) {
	for seq := from; seq <= to; seq++ {
		events = append(events, skyport.Event{Seq: seq, Job: "j", Owner: "me"})
	}
	return events
}

func drain(events <-chan skyport.Event) (seqs []int64, closed bool) {
	for {
		select {
		case e, open := <-events:
			if !open {
				return seqs, true
			}
			seqs = append(seqs, e.Seq)
		default:
			return seqs, false
		}
	}
}

func TestFollowersGetWhatConcernsThem(t *testing.T) {
	t.Parallel()
	h := &hub{}
	tests := map[string]struct {
		query api.EventQuery
		want  string
	}{
		"everything":      {api.EventQuery{}, "[1 2 3 0 4]"},
		"of one user":     {api.EventQuery{Owner: "me"}, "[1 3 0]"},
		"of one job":      {api.EventQuery{Job: "b"}, "[2 3]"},
		"after":           {api.EventQuery{After: 2}, "[3 0 4]"},
		"live of my jobs": {api.EventQuery{Owner: "me", Job: "a", After: 100}, "[0]"},
	}
	channels := map[string]<-chan skyport.Event{}
	for name, test := range tests {
		events, stop := h.subscribe(test.query)
		defer stop()
		channels[name] = events
	}
	h.publish(skyport.Event{Seq: 1, Owner: "me", Job: "a"}, skyport.Event{Seq: 2, Owner: "you", Job: "b"})
	h.publish(skyport.Event{Seq: 3, Owner: "me", Job: "b"}, skyport.Event{Owner: "me", Job: "a"}, skyport.Event{Seq: 4, Partition: "p"})
	for name, test := range tests {
		if got, closed := drain(channels[name]); fmt.Sprint(got) != test.want || closed {
			t.Errorf("%s: got %v, want %s; closed %v", name, got, test.want, closed)
		}
	}
}

// Nobody waits for a slow follower: it loses its channel, having got
// everything up to there without a gap, and goes on from the store.
func TestASlowFollowerLosesItsChannel(t *testing.T) {
	t.Parallel()
	h := &hub{}
	slow, stopSlow := h.subscribe(api.EventQuery{})
	defer stopSlow()
	fast, stopFast := h.subscribe(api.EventQuery{})
	defer stopFast()
	read := 0
	for seq := int64(1); seq <= 3*backlog; seq++ {
		h.publish(skyport.Event{Seq: seq})
		if e := <-fast; e.Seq == seq {
			read++
		}
	}
	if read != 3*backlog {
		t.Errorf("who keeps up got %d of %d events", read, 3*backlog)
	}
	got, closed := drain(slow)
	if !closed || len(got) != backlog {
		t.Fatalf("the slow one got %d events, closed %v", len(got), closed)
	}
	for i, seq := range got {
		if seq != int64(i+1) {
			t.Fatalf("event %d is %d: a gap", i+1, seq)
		}
	}
	resumed, stop := h.subscribe(api.EventQuery{After: got[len(got)-1]})
	h.publish(numbered(backlog, backlog+2)...)
	if seqs, _ := drain(resumed); len(seqs) != 2 || seqs[0] != backlog+1 {
		t.Errorf("resumed with %v", seqs)
	}
	stop()
	stop()     // twice is once
	stopSlow() // of what was dropped already
	if len(h.followers) != 1 {
		t.Errorf("%d followers are left", len(h.followers))
	}
}

func TestTheHubTakesManyAtOnce(t *testing.T) {
	t.Parallel()
	h := &hub{}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				events, stop := h.subscribe(api.EventQuery{})
				h.publish(numbered(1, 3)...)
				if e, open := <-events; open && e.Seq == 0 {
					t.Error("an event without a place")
				}
				stop()
			}
		})
	}
	all.Wait()
	if len(h.followers) > 0 {
		t.Errorf("%d followers are left", len(h.followers))
	}
}
