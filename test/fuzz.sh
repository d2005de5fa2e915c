#!/usr/bin/env bash
# Every fuzz target there is, for a time each:  test/fuzz.sh 30s [package…]
# What a target finds lies in its package's testdata/fuzz afterwards: commit it
# with the fix. The seeds alone are run by every go test.
set -euo pipefail
cd "$(dirname "$0")/.."

each=${1:-30s}
shift || true
failed=()
total=0
while read -r package target; do
  total=$((total + 1))
  printf '\n=== %s %s for %s\n' "$package" "$target" "$each"
  CGO_ENABLED=0 go test -run='^$' -fuzz="^$target\$" -fuzztime="$each" "$package" || failed+=("$package $target")
done < <(
  go list -f '{{$p := .ImportPath}}{{$d := .Dir}}{{range .TestGoFiles}}{{$p}} {{$d}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$p}} {{$d}}/{{.}}
{{end}}' "${@:-./...}" | while read -r package file; do
    [ -n "$file" ] || continue
    sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$package \1|p" "$file"
  done
)
[ "$total" -gt 0 ] || { echo "fuzz: there is no fuzz target" >&2; exit 1; }
[ ${#failed[@]} = 0 ] || { printf '\nfailed: %s\n' "${failed[@]}"; exit 1; }
printf '\n%d targets, %s each: nothing found\n' "$total" "$each"
