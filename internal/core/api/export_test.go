package api

import "net/http"

// Routes are all patterns of a handler that New made.
func Routes(h http.Handler) []string { return h.(*api).routes }
