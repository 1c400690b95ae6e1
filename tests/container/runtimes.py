"""The quickstart under every container runtime of this machine, in a root folder made in a moment of this machine's own
libraries: on two virtual nodes, with one rank killed inside, each loss has the bits of the run without a container.
An agent that is killed leaves nothing of its container behind. A damaged archive, a full disk and hostile names end
with one sentence, before any rank starts. (container_tests has the same by unit; images.py builds real images.)
"""
import hashlib
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import container_runs  # noqa: E402

def damaged_archive_is_refused(launcher, root):
    archive = launcher.work / "image.tar"
    subprocess.run(["tar", "-C", root, "--exclude=*/torch/*", "-cf", archive, "."], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    run = launcher.run(harness.QUICKSTART, *container_runs.words("bubblewrap", archive, digest),
                       extra={"MDS_IMAGE_STORE": str(launcher.work / "store")})
    refused(run, digest, hashlib.sha256(data).hexdigest())


def full_disk_is_an_error(launcher, root):
    """The store on a disk of 1 MB: no half image stays under the name that a later job would trust."""
    archive = launcher.work / "image.tar"
    subprocess.run(["tar", "-C", root, "--exclude=*/torch/*", "-cf", archive, "."], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    disk = launcher.work / "small-disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        print("a full disk is left out: mounting one needs root")
        return
    try:
        run = launcher.run(harness.QUICKSTART, *container_runs.words("bubblewrap", archive, digest),
                           extra={"MDS_IMAGE_STORE": str(disk / "store")})
        refused(run, str(disk), str(archive.stat().st_size))
        trusted = [path.name for path in (disk / "store").rglob("*") if path.name == digest]
        harness.check(not trusted, f"a full disk left {trusted}")
    finally:
        subprocess.run(["umount", disk], check=True)


def refused(run, *texts):
    """Before any rank started, with one sentence that has these texts."""
    harness.check(run.exit_code in (1, 2, 4), run.everything())
    for text in texts:
        harness.check(text in run.errors + run.output, f"'{text}' is not named: {run.everything()}")
    logs = list(run.folder.glob("logs/rank-*.log")) if run.folder else []
    harness.check(not any(path.stat().st_size for path in logs), f"ranks have run: {run.everything()}")


def hiding_binds_are_refused(launcher, root):
    for bind, reason in (("/tmp:/etc", "/etc"), ("/tmp:/usr/lib", "/usr/lib"), ("/tmp:/proc", "/proc"),
                         ("/tmp:relative", "relative"), ("/tmp:/mnt\\n", "control")):
        run = launcher.run(harness.QUICKSTART, *container_runs.words("bubblewrap", root), "--set",
                           f'container.binds=["{bind}"]').expect(2)
        harness.check(reason in run.errors, f"{bind}: {run.errors}")


def test(launcher, arguments):
    wanted = container_runs.runtimes(arguments.runtimes.split(","), launcher)
    if not wanted:
        return harness.skip("no container runtime is installed (.ci/setup test)")
    begin = time.monotonic()
    # Charliecloud cannot say colons, and it alone; all the rest must survive every argument list.
    folder = launcher.work / "an image, 'so \"to\" say'; $(true) %s"
    root = container_runs.Root(folder, launcher.program.parent / "mdstrain").folder
    print(f"root folder: {time.monotonic() - begin:.1f} s")
    expected = container_runs.losses(launcher.run(harness.QUICKSTART, *container_runs.SHORT).expect(0))
    for runtime, environment in wanted.items():
        inside = container_runs.words(runtime, root)
        seconds = container_runs.same_bits(launcher, runtime, inside, expected, environment)
        begin = time.monotonic()
        container_runs.killed_agent_leaves_nothing(launcher, runtime, inside, root, environment)
        print(f"{runtime}: same bits with a killed rank in {seconds:.1f} s; a killed agent leaves nothing, "
              f"{time.monotonic() - begin:.1f} s", flush=True)
    if "bubblewrap" in wanted:
        damaged_archive_is_refused(launcher, root)
        full_disk_is_an_error(launcher, root)
        hiding_binds_are_refused(launcher, root)
        print("a damaged archive, a full disk, binds that hide the system: refused")
    return 0


def add_arguments(parser):
    parser.add_argument("--runtimes", default="podman,charliecloud,bubblewrap,apptainer")


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
