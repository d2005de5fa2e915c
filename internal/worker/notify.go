package worker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notifier tells of changes of files as the kernel sees them. The kernel gives
// a user only so many instances (fs.inotify.max_user_instances); a worker that
// gets none looks for itself, all the time.
type notifier struct {
	file *os.File // nil: nothing is told
	log  *slog.Logger
	// pause is how long events may gather before they are told together.
	pause time.Duration

	mu      sync.Mutex
	watches map[int32]func()
	closed  chan struct{}
}

func newNotifier(pause time.Duration, log *slog.Logger) *notifier {
	n := &notifier{log: log, pause: pause, watches: make(map[int32]func()), closed: make(chan struct{})}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		log.Warn("the kernel does not tell of changes of files; a larger fs.inotify.max_user_instances may help", "error", err)
		return n
	}
	n.file = os.NewFile(uintptr(fd), "inotify")
	return n
}

// lookPause is how long a change goes unseen when the kernel does not tell.
const lookPause = 50 * time.Millisecond

// add calls changed after each event of mask on path, never twice at once. It
// must not block. The watch ends with drop, or with the file.
func (n *notifier) add(path string, mask uint32, changed func()) (watch int32, err error) {
	if n.file == nil {
		return -1, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	err = n.control(func(fd int) error {
		wd, err := unix.InotifyAddWatch(fd, path, mask)
		watch = int32(wd) //nolint:gosec // the kernel counts in int32
		return err        //nolint:wrapcheck // wrapped below
	})
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", path, err)
	}
	n.watches[watch] = changed
	return watch, nil
}

// drop ends a watch.
func (n *notifier) drop(watch int32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.watches[watch]; !ok {
		return
	}
	delete(n.watches, watch)
	_ = n.control(func(fd int) error { // fails when the file went first
		_, err := unix.InotifyRmWatch(fd, uint32(watch)) //nolint:gosec // as above
		return err                                       //nolint:wrapcheck // not told
	})
}

func (n *notifier) control(do func(fd int) error) error {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return err //nolint:wrapcheck // callers wrap
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}

// run tells of events until close. lost is called when events were lost, and
// again and again when none are told.
func (n *notifier) run(lost func()) {
	if n.file == nil {
		n.look(lost)
		return
	}
	buf := make([]byte, 64<<10)
	for {
		size, err := n.file.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
				n.log.Error("file watching ended", "error", err)
			}
			return
		}
		changed, overflow := n.events(buf[:size])
		if overflow {
			lost()
		}
		for _, tell := range changed {
			tell()
		}
		if n.pause == 0 {
			continue
		}
		gather := time.NewTimer(n.pause)
		select {
		case <-gather.C:
		case <-n.closed:
			gather.Stop()
			return
		}
	}
}

// look has everything looked at again and again until close.
func (n *notifier) look(all func()) {
	again := time.NewTicker(max(lookPause, n.pause))
	defer again.Stop()
	for {
		select {
		case <-again.C:
			all()
		case <-n.closed:
			return
		}
	}
}

// events reads the kernel's records; each watch is told once.
func (n *notifier) events(buf []byte) (changed map[int32]func(), overflow bool) {
	changed = make(map[int32]func())
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(buf) >= unix.SizeofInotifyEvent {
		event := (*unix.InotifyEvent)(unsafe.Pointer(&buf[0])) //nolint:gosec // the kernel's own layout, length checked
		buf = buf[min(unix.SizeofInotifyEvent+int(event.Len), len(buf)):]
		switch {
		case event.Mask&unix.IN_Q_OVERFLOW != 0:
			overflow = true
		case event.Mask&unix.IN_IGNORED != 0:
			delete(n.watches, event.Wd)
		default:
			if tell, ok := n.watches[event.Wd]; ok {
				changed[event.Wd] = tell
			}
		}
	}
	return changed, overflow
}

func (n *notifier) close() {
	close(n.closed)
	if n.file != nil {
		_ = n.file.Close() // nothing was written
	}
}
