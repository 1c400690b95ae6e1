"""Builds the image for CPUs from cpu.def with Apptainer and from Containerfile.cpu with Podman's builder, and runs the
quickstart in both, on two virtual nodes, under every runtime of this machine, under a real Slurm and under mpirun: with
one rank killed inside and started again, the same losses, to the last bit, as without a container. Then MPI programs
run in it (mpi_in_images.py).

    images.py [--build FOLDER] [--from-source] [--images FOLDER] [--runtimes apptainer,podman,charliecloud,bubblewrap]

--from-source compiles our programs inside, as the recipe does for a user; else those of the build under test go in.
--images takes cpu.sif and cpu.tar from a folder where they are there, and leaves them there where they are not.
"""
import pathlib
import shlex
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import slurm_cluster  # noqa: E402
import container_runs  # noqa: E402
import image_builds  # noqa: E402
import mpi_in_images  # noqa: E402

sys.path.insert(0, str(harness.ROOT / "tests/end_to_end"))
import mpi  # noqa: E402
import slurm  # noqa: E402

TRAINER = "/usr/local/bin/mdstrain"


def built(launcher, arguments, wanted):
    """{runtime: image}, each image built once."""
    work = pathlib.Path(arguments.images or launcher.work)
    work.mkdir(exist_ok=True)
    base = image_builds.debian_base(launcher.work)
    offline = image_builds.offline_folder(launcher.work, launcher, ["cpu"], from_source=arguments.from_source)
    images = {}
    if "apptainer" in wanted:
        program = shutil.which("apptainer", path=wanted["apptainer"]["PATH"])
        images["apptainer"] = work / "cpu.sif"
        if not images["apptainer"].exists():
            image_builds.Apptainer(program, work).build("cpu", bootstrap="localimage", base=base, offline=offline)
    others = [name for name in wanted if name != "apptainer"]
    archive = work / "cpu.tar"
    if others and not archive.exists():
        podman = image_builds.Podman(work)
        podman.take(base, "debian-12")
        podman.build("cpu", offline, base="localhost/debian-12")
        podman.archive("cpu")
        podman.close()
    return images | {name: archive for name in others}


def under_slurm(launcher, inside, expected, environment):
    """An sbatch script on two nodes; its agents start the containers."""
    if missing := slurm_cluster.missing_programs():
        print(f"SLURM IS NOT TESTED: not installed: {', '.join(missing)}")
        return
    begin = time.monotonic()
    with slurm_cluster.Cluster(nodes=2) as cluster:
        jobs = slurm.Jobs(launcher, cluster)
        cluster.environment.update(environment)
        job, folder = jobs.submit(harness.QUICKSTART, *map(shlex.quote, [*container_runs.SHORT, *inside]))
        run = jobs.finished(job, folder, "COMPLETED").expect(0)
        slurm.nothing_left(launcher, cluster)
    harness.check(container_runs.losses(run) == expected, f"Slurm: other losses: {container_runs.losses(run)}")
    print(f"Slurm: same bits on two nodes, {time.monotonic() - begin:.1f} s with Slurm's own start", flush=True)


def under_mpirun(launcher, inside, expected, environment):
    mpirun = next((path for name in mpi.KINDS["Open MPI"] if (path := shutil.which(name))), None)
    if not mpirun:
        print("MPIRUN IS NOT TESTED: Open MPI is not installed")
        return
    run = launcher.run(harness.QUICKSTART, *container_runs.SHORT, *inside, *mpi.mpi_words(mpirun),
                       extra=environment).expect(0)
    harness.check(container_runs.losses(run) == expected, f"mpirun: other losses: {container_runs.losses(run)}")
    print(f"mpirun: same bits on two nodes, {run.seconds:.1f} s", flush=True)


def test(launcher, arguments):
    if lacking := image_builds.missing("mmdebstrap", "buildah", "podman", "patchelf"):
        return harness.skip(f"not installed: {', '.join(lacking)} (.ci/setup test)")
    wanted = container_runs.runtimes(arguments.runtimes.split(","), launcher)
    images = built(launcher, arguments, wanted)
    expected = container_runs.losses(launcher.run(harness.QUICKSTART, *container_runs.SHORT).expect(0))
    store, last = {"MDS_IMAGE_STORE": str(launcher.work / "image-store")}, None
    for runtime, environment in wanted.items():
        inside = container_runs.words(runtime, images[runtime], image_builds.sha256(images[runtime]), TRAINER)
        last = (inside, expected, {**environment, **store})
        seconds = container_runs.same_bits(launcher, runtime, *last)
        print(f"{runtime}: same bits, one rank killed and started again, {seconds:.1f} s", flush=True)
    if last:
        under_slurm(launcher, *last)
        under_mpirun(launcher, *last)
    if "apptainer" in wanted:
        mpi_in_images.check(launcher, wanted, images["apptainer"])
    return 0


def add_arguments(parser):
    parser.add_argument("--from-source", action="store_true")
    parser.add_argument("--images")
    parser.add_argument("--runtimes", default="podman,charliecloud,bubblewrap,apptainer")


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
