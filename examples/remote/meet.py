"""Tasks that find each other by the environment that torchrun's users know: rank 0
listens, the others come with their rank, and all learn the sum."""
import os
import socket
import time

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    with socket.create_server(place) as server:
        peers = [server.accept()[0] for _ in range(size - 1)]
        total = sum(int(peer.makefile().readline()) for peer in peers)
        for peer in peers:
            peer.sendall(f"{total}\n".encode())
            peer.close()
else:
    for _ in range(100):
        try:
            server = socket.create_connection(place, timeout=10)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)  # rank 0 does not listen yet, and nobody tells when
    else:
        raise SystemExit(f"rank 0 does not listen on {place}")
    server.sendall(f"{rank}\n".encode())
    total = int(server.makefile().readline())
    server.close()
print(f"rank {rank} of {size} on {os.uname().nodename}: the sum of the others' ranks is {total}")
