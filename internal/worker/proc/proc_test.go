package proc

import (
	"net"
	"os"
	"slices"
	"testing"
)

func TestSelf(t *testing.T) {
	t.Parallel()
	self, err := Read(os.Getpid())
	if err != nil || self.Parent != os.Getppid() || self.Memory <= 0 || self.Zombie {
		t.Fatalf("%+v, %v", self, err)
	}
	if !Alive(self.PID, self.Start) || Alive(self.PID, self.Start+1) {
		t.Error("a process is the one that started then, and no other")
	}
	table, err := Snapshot()
	if err != nil || !slices.Contains(table.Descendants(os.Getppid()), os.Getpid()) {
		t.Errorf("not a child of its parent: %v", err)
	}
}

func TestListeners(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "127.9.8.7:0", "0.0.0.0:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Skip(err)
		}
		want := l.Addr().(*net.TCPAddr).AddrPort()
		found, err := Listeners([]int{int(want.Port())})
		if err != nil || len(found) == 0 || found[0].Address.Port() != want.Port() || found[0].Address.Addr().Unmap().String() != want.Addr().Unmap().String() && !want.Addr().IsUnspecified() {
			t.Errorf("%s: found %v, %v", want, found, err)
		} else if !slices.Contains(Sockets(os.Getpid()), found[0].Inode) {
			t.Errorf("%s: not among the own sockets", want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("7 (a) b) (c) S 1 7 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 55 0 9 0"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if p, err := parse(line); err == nil && string(line) == "7 (a) b) (c) S 1 7 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 55 0 9 0" {
			if p.PID != 7 || p.Parent != 1 || p.Start != 55 || p.CPU != 3*tick || p.Reaped != 7*tick || p.Memory != 9*pageSize {
				t.Errorf("%+v", p)
			}
		}
		parseListener(string(line))
	})
}
