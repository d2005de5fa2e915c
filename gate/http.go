package gate

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/openworkload/skyport"
)

// admit lets in whom Authorize admits.
func (s *Server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.options.Authorize(r); err != nil {
			if skyport.CodeOf(err) == skyport.CodeInternal {
				err = skyport.Errorf(skyport.CodeForbidden, "%w", err)
			}
			s.log.WarnContext(r.Context(), "refused", "remote", r.RemoteAddr, "path", r.URL.Path, "error", err)
			s.metrics.answered("refused", problemOf(err).Status, 0, true)
			sayProblemPlain(w, problemOf(err))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// measure counts and times the answers of the API.
func (s *Server) measure(ctx huma.Context, next func(huma.Context)) {
	start := time.Now()
	next(ctx)
	waited := ctx.Query("after") != ""
	s.metrics.answered(ctx.Operation().OperationID, ctx.Status(), time.Since(start), waited)
}

// ready answers 200 when every provider tells its sites, else 503 and why.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	_, problems := s.allSites(r.Context())
	if len(problems) == 0 {
		sayPlain(w, http.StatusOK, "ready")
		return
	}
	var why strings.Builder
	for _, p := range problems {
		// The reason may name things of the site: it goes to the log, not to anybody who asks.
		s.log.WarnContext(r.Context(), "not ready", "kind", p.Kind, "reason", p.Details)
		why.WriteString("provider " + p.Kind + " is not ready\n")
	}
	sayPlain(w, http.StatusServiceUnavailable, why.String())
}

func sayPlain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(strings.TrimSuffix(text, "\n") + "\n")) // the caller may be gone: nothing to do
}

func sayProblemPlain(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the caller may be gone: nothing to do
}
