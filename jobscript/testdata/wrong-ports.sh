#!/bin/sh
#SWM ports 0
#SWM ports 65536,  80/udp/in,8080/tcp/both
#SWM ports 80/tcp/in,,443
#SWM ports 443/tcp/out
#SWM ports 80/
#SWM ports 22x,

----------
job.sh:2:12: ports: expected a port from 1 to 65535, then /tcp or nothing, then /in, /out or nothing, not "0"
    for example: #SWM ports 8888/tcp/in,8081/tcp/out
job.sh:3:12: ports: expected a port from 1 to 65535, then /tcp or nothing, then /in, /out or nothing, not "65536"
    for example: #SWM ports 8888/tcp/in,8081/tcp/out
job.sh:3:20: ports: only tcp is forwarded, not "80/udp/in"
    for example: #SWM ports 8888/tcp/in,8081/tcp/out
job.sh:3:30: ports: expected a port from 1 to 65535, then /tcp or nothing, then /in, /out or nothing, not "8080/tcp/both"
    for example: #SWM ports 8888/tcp/in,8081/tcp/out
job.sh:4:22: ports: expected a port from 1 to 65535, then /tcp or nothing, then /in, /out or nothing, not ""
    for example: #SWM ports 8888/tcp/in,8081/tcp/out
job.sh:5:12: ports: port 443 is there already, on line 4
    a port is forwarded once, in one direction
job.sh:6:12: ports: expected a port from 1 to 65535, then /tcp or nothing, then /in, /out or nothing, not "80/"
    for example: #SWM ports 8888/tcp/in,8081/tcp/out
job.sh:7:12: ports: expected a port from 1 to 65535, then /tcp or nothing, then /in, /out or nothing, not "22x"
    for example: #SWM ports 8888/tcp/in,8081/tcp/out
job.sh:7:16: ports: expected a port from 1 to 65535, then /tcp or nothing, then /in, /out or nothing, not ""
    for example: #SWM ports 8888/tcp/in,8081/tcp/out
