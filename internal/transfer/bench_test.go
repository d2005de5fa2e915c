package transfer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// plantMany writes files of one size in directories of a hundred.
func plantMany(t testing.TB, dir string, files, size int) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{1})
	content := make([]byte, size)
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprint("d", i/100))
		if i%100 == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = random.Read(content) // never fails
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("f", i)), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func benchmarkPush(b *testing.B, files, size int) {
	from := b.TempDir()
	plantMany(b, from, files, size)
	b.SetBytes(int64(files) * int64(size))
	target := b.TempDir()
	for n := 0; b.Loop(); n++ {
		to := filepath.Join(target, fmt.Sprint(n))
		tree, err := Scan(b.Context(), ScanOptions{Root: from})
		if err != nil {
			b.Fatal(err)
		}
		r := NewReceiver(to, ReceiverOptions{})
		if _, err := Push(b.Context(), serve(b, receiving(r)), base, tree, Options{}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(to); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkPush256MiB(b *testing.B)    { benchmarkPush(b, 1, 256<<20) }
func BenchmarkPush2000Files(b *testing.B) { benchmarkPush(b, 2000, 4<<10) }

func benchmarkScan(b *testing.B, files, size int) {
	from := b.TempDir()
	plantMany(b, from, files, size)
	b.SetBytes(int64(files) * int64(size))
	for b.Loop() {
		if _, err := Scan(b.Context(), ScanOptions{Root: from}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan256MiB(b *testing.B)    { benchmarkScan(b, 1, 256<<20) }
func BenchmarkScan2000Files(b *testing.B) { benchmarkScan(b, 2000, 4<<10) }

// BenchmarkCopy… is what cp makes of the same.
func benchmarkCopy(b *testing.B, files, size int) {
	from := b.TempDir()
	plantMany(b, from, files, size)
	b.SetBytes(int64(files) * int64(size))
	target := b.TempDir()
	for n := 0; b.Loop(); n++ {
		to := filepath.Join(target, fmt.Sprint(n))
		if out, err := exec.CommandContext(b.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
			b.Fatal(err, string(out))
		}
		b.StopTimer()
		if err := os.RemoveAll(to); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkCopy256MiB(b *testing.B)    { benchmarkCopy(b, 1, 256<<20) }
func BenchmarkCopy2000Files(b *testing.B) { benchmarkCopy(b, 2000, 4<<10) }
