"""A disk that fills while a checkpoint is written: the run goes on, the older checkpoint stays whole and can be resumed
from, and once there is room again checkpoints are written again. If there is none for the last one, the run fails and
says so. The disk is a tmpfs in a mount namespace of this test's own (needs root or unprivileged user namespaces).
"""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

INTERVAL, STEPS = 30, 240  # at some milliseconds a step there is time to see the failure and to make room again
IN_NAMESPACE = "MDS_TEST_IN_MOUNT_NAMESPACE"


def enter_mount_namespace():
    """Runs this script again inside a mount namespace; returns False if that cannot be had here."""
    flags = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    probe = ["unshare", *flags, "sh", "-c", "mount -t tmpfs none /mnt"]
    if subprocess.run(probe, stderr=subprocess.DEVNULL).returncode != 0:
        return False
    os.environ[IN_NAMESPACE] = "1"
    os.execvp("unshare", ["unshare", *flags, sys.executable, *sys.argv])


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def saved(disk):
    """Names of all that lies in the run's checkpoint folder, committed or not."""
    return sorted(path.name for path in (disk / "latest/checkpoints").iterdir())


def leave_room(disk, whole):
    """Takes all room but that of one and a half checkpoints; returns the file that takes it."""
    first = whole.folder / "checkpoints" / whole.checkpoints()[0]
    one = sum(file.stat().st_size for file in first.iterdir())
    space = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * (space.f_bavail * space.f_frsize - one * 3 // 2))
    return ballast


def room_comes_back(launcher, job, sets, disk, whole):
    names, ballast = whole.checkpoints(), leave_room(disk, whole)
    process = launcher.start(job, *sets, "--output-dir", disk)
    errors = process.output_dir / "stderr"
    harness.wait_for(lambda: "No space left" in errors.read_text() or process.poll() is not None, 120,
                     "a checkpoint that finds no room")
    left = saved(disk)
    ballast.unlink()
    run = launcher.finish(process).expect(0)
    harness.check(left[:1] == names[:1] and names[1] not in left, f"then there were {left}: {run.everything()}")
    run.folder = (disk / "latest").resolve()
    harness.check(run.checkpoints()[-1] == names[-1], f"no checkpoint after room came back: {run.everything()}")
    harness.check(run.losses() == whole.losses(), "the losses are not those of the run that always had room")
    failed = sorted(set(names) - set(run.checkpoints()))
    print(f"{len(failed)} of {len(names)} checkpoints found no room; the run finished")
    shutil.rmtree(run.folder)


def room_stays_away(launcher, job, sets, disk, whole):
    names = whole.checkpoints()
    leave_room(disk, whole)
    run = launcher.run(job, *sets, "--output-dir", disk).expect(1)
    harness.check("No space left" in run.errors, f"the first cause is not named: {run.everything()}")
    harness.check(saved(disk) == names[:1], f"expected {names[:1]}, found {saved(disk)}")
    resumed = launcher.run(job, "--set", f"checkpoint.load={disk}/latest/checkpoints/{names[0]}").expect(0)
    harness.check(resumed.losses() == {step: loss for step, loss in whole.losses().items() if step > INTERVAL},
                  "resumed from the old checkpoint, the losses differ")
    print("no room to the end: exit code 1, and the old checkpoint goes on with the same losses")


def test(launcher, arguments):
    job = launcher.job(harness.small_job(data=2, steps=STEPS))
    sets = [word for value in (f"checkpoint.interval={INTERVAL}", "checkpoint.keep=0", "restart.max_restarts=0")
            for word in ("--set", value)]
    whole = launcher.run(job, *sets).expect(0)
    everything = sum(file.stat().st_size for file in whole.folder.rglob("*") if file.is_file())
    with small_disk(launcher.work / "disk", 2 * everything + (1 << 20)) as disk:
        room_comes_back(launcher, job, sets, disk, whole)
        room_stays_away(launcher, job, sets, disk, whole)


if __name__ == "__main__":
    if IN_NAMESPACE not in os.environ and not enter_mount_namespace():
        sys.exit(harness.skip("no mount namespace to be had here"))
    harness.main(test, __doc__)
