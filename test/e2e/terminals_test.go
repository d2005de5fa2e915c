package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport/internal/spool"
)

// TestTerminals: programs that know nothing but the contract of the /user
// routes work as they are. See test/terminals.
func TestTerminals(t *testing.T) {
	t.Parallel()
	for name, python := range map[string]func(*testing.T) string{"with_ssl.py": systemPython, "with_httpx.py": pythonWithHTTPX} {
		t.Run(strings.TrimSuffix(name, ".py"), func(t *testing.T) {
			t.Parallel()
			interpreter := python(t)
			h := open(t)
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, interpreter, filepath.Join("..", "terminals", name))
			mine := filepath.Join(h.home, ".swm")
			cmd.Env = append(os.Environ(), "CORE="+strings.Replace(h.url(""), "127.0.0.1", "localhost", 1), "CA="+spool.Layout{Dir: h.spool}.CAChain(),
				"CERT="+filepath.Join(mine, "cert.pem"), "KEY="+filepath.Join(mine, "key.pem"), "SCRATCH="+h.work,
				"PYTHONDONTWRITEBYTECODE=1", "PYTHONUTF8=1", "NO_PROXY=*")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func systemPython(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	return path
}

// pythonWithHTTPX is a Python that has httpx: the system's, or one in a virtual
// environment that is made once and kept in the user's cache.
func pythonWithHTTPX(t *testing.T) string {
	t.Helper()
	system := systemPython(t)
	if has(system) {
		return system
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("no place for a virtual environment:", err)
	}
	dir := filepath.Join(cache, "skyport-tools", "python")
	python := filepath.Join(dir, "bin", "python")
	if has(python) {
		return python
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	do := func(args ...string) error {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return errors.Join(err, errors.New(tail(string(out), 3)))
		}
		return nil
	}
	if err := do(system, "-m", "venv", "--clear", dir); err != nil && os.Getuid() == 0 && exec.Command("sh", "-c", "command -v apt-get").Run() == nil {
		// Debian keeps the module apart; root may mend that.
		if err := do("apt-get", "install", "-y", "-q", "python3-venv"); err != nil {
			t.Skip("python3-venv cannot be installed:", err)
		}
	}
	if _, err := os.Stat(python); err != nil {
		if err := do(system, "-m", "venv", "--clear", dir); err != nil {
			t.Skip("no virtual environment can be made:", err)
		}
	}
	if err := do(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "httpx"); err != nil {
		t.Skip("httpx cannot be installed:", err)
	}
	return python
}

func has(python string) bool { return exec.Command(python, "-c", "import httpx").Run() == nil }
