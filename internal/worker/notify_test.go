package worker

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// Where the kernel gives no inotify instance, everything is looked at time and
// again instead, until the end.
func TestNotifierWithoutKernel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &notifier{watches: map[int32]func(){}, closed: make(chan struct{})}
		watch, err := n.add(t.TempDir(), unix.IN_MOVED_TO, func() { t.Error("who has told?") })
		if err != nil {
			t.Fatal(err)
		}
		looks, ended := 0, make(chan struct{})
		go func() { defer close(ended); n.run(func() { looks++ }) }()
		time.Sleep(time.Second + lookPause/2) // of the bubble's clock
		synctest.Wait()
		if want := int(time.Second / lookPause); looks != want {
			t.Errorf("%d looks in a second, not %d", looks, want)
		}
		n.drop(watch)
		n.close()
		<-ended
	})
}
