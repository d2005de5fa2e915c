"""All ranks meet at rank 0 and sum up what each of them has, with plain sockets.

The environment is that of torchrun: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
"""

import json
import os
import socket
import time

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
mine = {"rank": rank, "value": rank * rank}


def lines(connection):
    return connection.makefile("rw", encoding="utf-8", newline="\n")


def lead():
    """Rank 0 listens, hears all others, and tells them the sum."""
    with socket.create_server(("", place[1])) as server:
        server.settimeout(60)
        others = [lines(server.accept()[0]) for _ in range(size - 1)]
    told = [mine] + [json.loads(other.readline()) for other in others]
    assert sorted(t["rank"] for t in told) == list(range(size))
    total = sum(t["value"] for t in told)
    for other in others:
        other.write(json.dumps(total) + "\n")
        other.flush()
    return total


def follow():
    """The others come when rank 0 is there."""
    until = time.monotonic() + 60
    while True:
        try:
            connection = lines(socket.create_connection(place, timeout=60))
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    connection.write(json.dumps(mine) + "\n")
    connection.flush()
    return json.loads(connection.readline())


print(f"rank {rank} of {size}: the sum is {lead() if rank == 0 else follow()}")
