"""MPI programs in an image, their own libraries with them: a program compiled inside with Open MPI 4 and 5 (which bring
PMIx 4.2 and 5.0) and MPICH 4 and 5 is the payload of a job on two nodes, with the agents' own PMIx from the host, under
every container runtime of this machine, under a real Slurm and through ssh.

    mpi_in_images.py [--build FOLDER] [--images FOLDER] [--runtimes apptainer,podman,charliecloud,bubblewrap]

--images takes cpu.sif from a folder, as images.py leaves it there.
"""
import pathlib
import shlex
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import mpi_program  # noqa: E402
import slurm_cluster  # noqa: E402
import container_runs  # noqa: E402
import image_builds  # noqa: E402

sys.path.insert(0, str(harness.ROOT / "tests/end_to_end"))
import slurm  # noqa: E402
import ssh  # noqa: E402

PROGRAMS = {"openmpi-4": "Open MPI 4.1 with PMIx 4.2", "openmpi-5": "Open MPI 5.0 with PMIx 5.0",
            "mpich-4": "MPICH 4.0 with PMI 1", "mpich-5": "MPICH 5.0 with PMI 1"}


def built(launcher, program, cpu_image):
    """The root folder of the image with the four programs."""
    wheels = mpi_program.wheel("Open MPI 5").parent
    harness.check(wheels.exists(), f"{wheels} is missing (.ci/setup test)")
    builder = image_builds.Apptainer(program, launcher.work)
    return builder.build("mpi", sandbox=True, definition=harness.ROOT / "tests/container/mpi.def", image=cpu_image,
                         wheels=wheels)


def job(launcher, name, *arguments, restarts=0):
    words = ", ".join(f'"{word}"' for word in (f"/usr/local/bin/sum-{name}", *arguments))
    return launcher.job(mpi_program.JOB.format(words=words, restarts=restarts), f"{name}-{restarts}.toml")


def under_slurm(launcher, words, environment):
    if missing := slurm_cluster.missing_programs():
        print(f"SLURM IS NOT TESTED: not installed: {', '.join(missing)}")
        return
    with slurm_cluster.Cluster(nodes=2) as cluster:
        jobs = slurm.Jobs(launcher, cluster)
        cluster.environment.update(environment)
        for name in PROGRAMS:
            number, folder = jobs.submit(job(launcher, name), *map(shlex.quote, words))
            mpi_program.check(jobs.finished(number, folder, "COMPLETED"))
        slurm.nothing_left(launcher, cluster)
    print(f"Slurm: {', '.join(PROGRAMS)}", flush=True)


def under_ssh(launcher, words, environment):
    with ssh.SshServer(launcher.work / "sshd", launcher.mark) as server:
        for name in PROGRAMS:
            mpi_program.check(launcher.run(job(launcher, name), *words, *ssh.ssh_words(server, "node[1-2]"),
                                           extra=environment))
    print(f"ssh: {', '.join(PROGRAMS)}", flush=True)


def check(launcher, wanted, cpu_image):
    """wanted: {runtime: environment}, Apptainer among them."""
    program = shutil.which("apptainer", path=wanted["apptainer"]["PATH"])
    image = built(launcher, program, cpu_image)
    words = {}
    for runtime, environment in wanted.items():
        words[runtime] = container_runs.words(runtime, image, trainer="")
        for name in PROGRAMS:
            mpi_program.check(launcher.run(job(launcher, name), *words[runtime], extra=environment))
        again = launcher.run(job(launcher, "openmpi-4", "3", restarts=1), *words[runtime], extra=environment)
        mpi_program.check(again)
        harness.check(again.report()["restarts"] == 1, f"restarts {again.report()['restarts']}")
        print(f"{runtime}: {', '.join(PROGRAMS.values())}; a killed rank started again", flush=True)
    # Apptainer is not in the PATH that an ssh has.
    others = [name for name in wanted if name != "apptainer"]
    under_slurm(launcher, words["apptainer"], wanted["apptainer"])
    if others:
        under_ssh(launcher, words[others[-1]], wanted[others[-1]])


def test(launcher, arguments):
    wanted = container_runs.runtimes(arguments.runtimes.split(","), launcher)
    cpu_image = pathlib.Path(arguments.images).resolve() / "cpu.sif"
    if "apptainer" not in wanted or not cpu_image.exists():
        return harness.skip(f"needs Apptainer and {cpu_image}")
    check(launcher, wanted, cpu_image)
    return 0


def add_arguments(parser):
    parser.add_argument("--images", default=".")
    parser.add_argument("--runtimes", default="podman,charliecloud,bubblewrap,apptainer")


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
