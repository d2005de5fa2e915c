#!/usr/bin/env bash
# make demo: a real job's whole life on this machine. Everything happens in a
# throw-away directory with its own HOME and spool, and is removed at the end,
# however it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
book=$(go env GOROOT)/src/testdata/Isaac.Newton-Opticks.txt

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m'; plain=$'\e[0m'; else bold=; plain=; fi
say() { printf '\n%s▸ %s%s\n' "$bold" "$*" "$plain"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

place=$(mktemp -d "${TMPDIR:-/tmp}/skyport-demo.XXXXXX")
export HOME=$place/home SWM_SPOOL=$place/spool SWM_KEEP_ALIVE=0s
unset SWM_CORE
mkdir -p "$HOME" "$place/work"
up=
PATH=$root/bin:$PATH

cleanup() {
  code=$?
  trap '' INT TERM
  if [ -n "$up" ] && kill -0 "$up" 2>/dev/null; then
    [ "$code" = 0 ] || { echo; echo "demo: cleaning up"; skyport purge --all --yes >/dev/null 2>&1 || true; }
    gone=
    for _ in $(seq 100); do
      gone=$(skyport partitions --json 2>/dev/null) || break
      [ "$gone" != "[]" ] || break
      sleep 0.1
    done
    kill "$up" 2>/dev/null || true
    wait "$up" 2>/dev/null || true
  fi
  [ "$code" = 0 ] || { [ -s "$place/up.log" ] && grep -E 'level=(WARN|ERROR)|^skyport' "$place/up.log" | tail -n 5 >&2 || true; }
  rm -rf "$place"
  exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "A throw-away spool, with certificates of its own"
skyport setup --yes --listen 127.0.0.1:0 --gate-listen 127.0.0.1:0 | sed 's/^/  /'

say "Core, gate and the local site"
# A session of its own: Ctrl-C must reach this script first, which cleans up.
setsid skyport up >"$place/up.log" 2>&1 &
up=$!
for _ in $(seq 200); do
  skyport sites >/dev/null 2>&1 && break
  kill -0 "$up" 2>/dev/null || { cat "$place/up.log" >&2; die "skyport up ended"; }
  sleep 0.05
done
skyport flavors

say "Submit: rank the words of Newton's Opticks"
cp "$root/bin/opticks" "$book" "$place/work/"
cd "$place/work"
sed -n 's/^#SWM/  #SWM/p' "$root/examples/opticks/job.sh"
# Meanwhile somebody reads the job's port, once, as soon as it answers.
(
  for _ in $(seq 1500); do
    address=$(skyport ports --json @last 2>/dev/null | sed -n 's/^ *"address": *"\(127[^"]*\)".*/\1/p' | head -n 1) || address=
    # In a shell of its own: one whose redirection fails is gone.
    answer=$(exec 3<>"/dev/tcp/${address%:*}/8087" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && tail -n 1 <&3) || answer=
    [ -z "$answer" ] || { echo "http://$address says $answer" >"$place/port"; exit 0; }
    sleep 0.02
  done
) 2>/dev/null &
reader=$!
skyport submit --follow "$root/examples/opticks/job.sh"
wait "$reader" || true
job=@last

say "Its forwarded port, read while it ran"
[ -s "$place/port" ] || die "the port never answered"
sed 's/^/  /' "$place/port"

say "What happened"
skyport events "$job" | sed 's/^/  /'
say "What it wrote"
skyport logs "$job" | sed 's/^/  /'

say "The results, fetched and checked against figures of other tools"
skyport results "$job" --to "$place/results"
LC_ALL=C tr 'A-Z' 'a-z' <"$book" | LC_ALL=C tr -cs 'a-z' '\n' | sed '/^$/d' >"$place/words"
LC_ALL=C sort "$place/words" | uniq -c | LC_ALL=C sort -k1,1nr -k2,2 | awk 'BEGIN{print "rank,word,count"} {print NR "," $2 "," $1}' >"$place/words.expected"
cmp "$place/words.expected" "$place/results/words.csv" || die "words.csv differs from what sort and uniq count"
awk 'p!=""{print p " " $0} {p=$0}' "$place/words" | LC_ALL=C sort | uniq -c | LC_ALL=C sort -k1,1nr -k2 |
  awk 'BEGIN{print "rank,pair,count"} {print NR "," $2 " " $3 "," $1}' >"$place/pairs.expected"
cmp "$place/pairs.expected" "$place/results/pairs.csv" || die "pairs.csv differs from what sort and uniq count"
grep -q '</svg>' "$place/results/words.svg" || die "words.svg is not whole"
echo "  words.csv: $(($(wc -l <"$place/words.expected") - 1)) words, pairs.csv: $(($(wc -l <"$place/pairs.expected") - 1)) pairs, both equal to sort | uniq -c; words.svg is whole"

say "The site is empty again"
for _ in $(seq 600); do
  [ "$(skyport partitions --json)" != "[]" ] || break
  sleep 0.05
done
[ "$(skyport partitions --json)" = "[]" ] || die "a partition is left"
left=$(find "$SWM_SPOOL/local" -mindepth 1 -maxdepth 1 -type d ! -name '.*' | wc -l)
[ "$left" = 0 ] || die "$left node directories are left"
skyport partitions

say "Its timeline"
skyport show "$job"

say "That was a job's whole life. Try it by hand: README.md"
