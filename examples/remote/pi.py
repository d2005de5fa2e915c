"""Pi by the midpoint rule over all ranks of an MPI world."""
import os
import sys

from mpi4py import MPI

world = MPI.COMM_WORLD
steps = int(sys.argv[1])
width = 1.0 / steps
part = width * sum(4.0 / (1.0 + ((i + 0.5) * width) ** 2) for i in range(world.rank, steps, world.size))
pi = world.reduce(part, op=MPI.SUM)
hosts = world.gather(os.uname().nodename)
if world.rank == 0:
    print(f"pi = {pi:.10f} by {world.size} ranks on {', '.join(sorted(set(hosts)))}", flush=True)
