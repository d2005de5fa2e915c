#SWM name Ã¤ÿ
#SWM comment bell 
echo ÿ is fine here
#SWM nodes â…¨ 2

----------
job.sh:1:12: a directive must not contain bytes that are not UTF-8
    write directives in UTF-8, without control characters
job.sh:2:19: a directive must not contain control characters
    write directives in UTF-8, without control characters
job.sh:4:12: nodes: expected a whole number from 1 to 10000, not "â…¨ 2"
    for example: #SWM nodes 2
