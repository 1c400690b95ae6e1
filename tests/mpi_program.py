"""A real MPI program (tests/end_to_end/mpi_sum.c), compiled with the MPI libraries of this machine, as the payload of a
job: every rank is to be a rank of one MPI_COMM_WORLD that spans the job's nodes, whichever back end starts it."""
import pathlib
import shutil
import subprocess

import harness

SOURCE = pathlib.Path(__file__).resolve().parent / "end_to_end/mpi_sum.c"
COMPILERS = {"Open MPI": "mpicc.openmpi", "MPICH": "mpicc.mpich"}
JOB = """[job]
name = "mpi"
devices = "cpu"
nodes = 2
ranks_per_node = 2
[payload]
command = [{words}]
mpi = true
[restart]
max_restarts = {restarts}
"""


def job(launcher, kind, *arguments, restarts=0):
    """A job file of 4 ranks on 2 nodes; None where this machine lacks that MPI."""
    compiler = shutil.which(COMPILERS[kind])
    if not compiler:
        return None
    program = launcher.work / f"sum-{COMPILERS[kind]}"
    if not program.exists():
        subprocess.run([compiler, "-o", program, SOURCE], check=True)
    words = ", ".join(f'"{word}"' for word in (program, *arguments))
    return launcher.job(JOB.format(words=words, restarts=restarts), f"{program.name}-{restarts}.toml")


def check(run):
    """1 + 2 + 3 + 4, and two ranks on each node."""
    run.expect(0)
    harness.check("sum 10 of 4 ranks, 2 on this node" in run.log(0), f"what rank 0 found: {run.log(0)}"
                  f"{run.everything()}")
