#!/usr/bin/env bash
# The strict linters of .golangci.yml, at one version, built once per machine
# and Go release (about a minute on two cores) into the user's cache.
#
#   test/lint.sh            check everything
#   test/lint.sh fmt        format everything
#   test/lint.sh ./gate     check one package
#
# Exit code 75 says that the linter could not be built, say for want of a network.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v2.15.0
export CGO_ENABLED=0 GOTOOLCHAIN=local
place=${XDG_CACHE_HOME:-$HOME/.cache}/skyport/golangci-lint-$version-$(go env GOVERSION)
linter=$place/golangci-lint

if [ ! -x "$linter" ]; then
  echo "building golangci-lint $version into $place"
  GOBIN=$place timeout 20m go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version" 2>&1 |
    { grep -v '^go: downloading' || true; }
  [ -x "$linter" ] || { echo "lint: golangci-lint $version could not be built" >&2; exit 75; }
fi

# With the flags of make build, so that what it compiled need not be compiled again.
GOFLAGS="$(go env GOFLAGS) -trimpath"
export GOFLAGS

case ${1:-} in
fmt) exec "$linter" fmt ./... ;;
"") exec "$linter" run --allow-parallel-runners ./... ;;
*) exec "$linter" run --allow-parallel-runners "$@" ;;
esac
