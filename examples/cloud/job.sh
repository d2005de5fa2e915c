#!/bin/sh
#SWM name         primes
#SWM comment      Counts primes on two machines of a cloud
#SWM site         azure
#SWM nodes        2
#SWM spot         prefer
#SWM retries      1
#SWM time         10
#SWM input-files  ranges.txt
#SWM output-files primes.txt
# Each task takes the line of its rank: a range of numbers.
cat >count.sh <<'END'
range=$(sed -n "$((SWM_TASK_RANK + 1))p" ranges.txt)
awk -v from="${range% *}" -v to="${range#* }" -v where="$(hostname)" 'BEGIN {
  for (n = from; n <= to; n++) {
    prime = n > 1
    for (d = 2; d * d <= n && prime; d++) if (n % d == 0) prime = 0
    found += prime
  }
  print found, "primes from", from, "to", to, "on", where
}'
END
swm-task sh count.sh >primes.txt
cat primes.txt
