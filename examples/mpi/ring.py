"""A token goes once round all ranks, and each adds its number to it."""

import os

from mpi4py import MPI

world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()
node = os.path.dirname(os.environ.get("SWM_JOB_HOSTFILE", "")) or MPI.Get_processor_name()

if rank == 0:
    world.send(0, dest=1 % size)
    token = world.recv(source=size - 1)
else:
    token = world.recv(source=rank - 1) + rank
    world.send(token, dest=(rank + 1) % size)

places = world.gather(node)
if rank == 0:
    print(f"{size} ranks in {len(set(places))} places, the token came back as {token}")
    assert token == sum(range(size))
