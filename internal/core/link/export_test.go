package link

// Binaries lets a test say which workers are installed.
type Binaries = binaries

// WithBinaries returns options by which other workers are installed.
func WithBinaries(o Options, b Binaries) Options {
	o.binaries = b
	return o
}
