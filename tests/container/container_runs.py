"""Runs in containers, for the scripts beside: the quickstart, cut short, under one runtime after the other; and what
must be gone after a violent end. Standard library only."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess

import apptainer
import harness

PROGRAMS = {"podman": "podman", "charliecloud": "ch-run", "bubblewrap": "bwrap"}
STEPS = 12
SHORT = [word for value in (f"training.steps={STEPS}", "training.eval_interval=6", "checkpoint.interval=4",
                            "lr_schedule.warmup_steps=2") for word in ("--set", value)]
KILLED_RANK, KILLED_STEP = 3, 6
# What a root folder has that runtimes mount over; runs are made below /tmp, data lie below /usr/share.
FOLDERS = ("bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/tmp",
           "usr/share/common-licenses")
FILES = ("etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf", "etc/localtime")


class Root:
    """An image in a moment: a shell, cat, and mdstrain if given, with all that they link, below one folder."""

    def __init__(self, folder, trainer=None):
        self.folder = folder
        for name in FOLDERS:
            (folder / name).mkdir(parents=True)
        for name in FILES:
            (folder / name).touch()
        for program in ("/bin/sh", "/bin/cat", "/bin/true"):
            self.add(pathlib.Path(program).resolve(), program)
        if trainer:
            self.add(trainer, "/usr/bin/mdstrain")

    def add(self, program, place):
        self.copy(program, place)
        linked = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        libraries = [pathlib.Path(library) for library in re.findall(r"(/\S+) \(0x", linked)]
        system = next(library.parent for library in libraries if library.name == "libc.so.6")
        for library in libraries:
            # A checkout's own go where the loader looks by itself: below /tmp a runtime's own /tmp would hide them.
            own = not str(library).startswith(("/lib", "/usr/"))
            self.copy(library, str(system / library.name if own else library))

    def copy(self, source, place):
        target = self.folder / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(source, target)


def runtimes(wanted, launcher):
    """{runtime: environment that it is found with} of those that are here; says loudly what is not."""
    found = {}
    for name in wanted:
        if name == "apptainer":
            program, problem = apptainer.find()
            if program:
                found[name] = {"PATH": f"{program.parent}:{launcher.environment()['PATH']}"}
            else:
                print(problem)
        elif shutil.which(PROGRAMS[name]):
            found[name] = {}
        else:
            harness.check(os.environ.get("CI") != "true", f"{name} is not installed (.ci/setup test)")
            print(f"{name.upper()} IS NOT TESTED: it is not installed")
    return found


def words(runtime, image, sha256="", trainer="mdstrain"):
    """The options that put a job into an image. Its ranks carry our mark, as all that a test starts."""
    pairs = {"runtime": runtime, "image": image, "sha256": sha256, "trainer": trainer}
    return [word for key, value in pairs.items() if value
            for word in ("--set", f'container.{key}="{toml_text(str(value))}"')
            ] + ["--set", 'container.inherit=["LAUNCH_TEST_MARK"]']


def toml_text(text):
    return text.replace("\\", "\\\\").replace('"', '\\"')


def losses(run):
    return run.losses(), run.validation_losses()


def same_bits(launcher, runtime, inside, expected, environment):
    """Two virtual nodes; one rank is killed and started again; every loss has the bits of the run without a container.
    Seconds that it took."""
    kill = ("--kill-rank", f"{KILLED_RANK}@{KILLED_STEP}")
    run = launcher.run(harness.QUICKSTART, *SHORT, *inside, *kill, extra=environment).expect(0)
    harness.check(run.report()["restarts"] == 1, f"{runtime}: no restart after the kill: {run.report()}")
    harness.check(losses(run) == expected, f"{runtime}: other losses than without a container: {losses(run)}, not "
                  f"{expected}")
    return run.seconds


def running(launcher, inside, environment, step=3):
    """A run that has reached a step, and would go on for hours."""
    process = launcher.start(harness.QUICKSTART, *SHORT, *inside, "--set", "training.steps=100000",
                             extra=environment)

    def reached():
        path = process.output_dir / "latest/metrics.jsonl"
        if process.poll() is not None:
            raise harness.Failure(launcher.finish(process).everything())
        return path.exists() and f'"step":{step},' in path.read_text()
    harness.wait_for(reached, 90, f"step {step}")
    return process


def mount_namespaces(pids):
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/mnt"))
    return found


def processes_in(namespaces):
    return [pid for folder in pathlib.Path("/proc").glob("[0-9]*") if (pid := folder.name) and
            mount_namespaces([pid]) & namespaces]


def naming(*texts):
    """Processes whose command line has one of these texts: runtimes, their monitors and FUSE daemons."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(text in line for text in texts) and int(folder.name) != os.getpid():
                found.append(f"{folder.name} {line[:160]}")
    return found


def killed_agent_leaves_nothing(launcher, runtime, inside, image, environment, seconds=15):
    """kill -9 of an agent while its ranks train in a container: no process of theirs or of the runtime stays, no mount,
    no FUSE daemon. The other node's go, too, when mdslaunch is killed right after."""
    process = running(launcher, inside, environment)
    mounts = pathlib.Path("/proc/self/mountinfo")
    run_name = (process.output_dir / "latest").resolve().name
    ranks = [pid for pid, line in launcher.survivors() if "mdstrain" in line.split()[0]]
    namespaces = mount_namespaces(ranks) - mount_namespaces([os.getpid()])
    harness.check(namespaces, f"{runtime}: the ranks {ranks} are in no container")
    agents = [pid for pid, line in launcher.survivors() if "mdsagent" in line.split()[0]]
    os.kill(max(agents), signal.SIGKILL)
    process.kill()
    process.wait()
    launcher.wait_until_gone(seconds)
    harness.wait_for(lambda: not processes_in(namespaces), seconds, f"{runtime}: end of the processes in {namespaces}")
    harness.wait_for(lambda: not naming(str(image), run_name), seconds, f"{runtime}: end of its own processes")
    left = [line for line in mounts.read_text().splitlines() if str(image) in line or run_name in line]
    harness.check(not left, f"{runtime} left mounts: {left}")
    if runtime == "podman":
        store = f"/dev/shm/mds-podman-{os.geteuid()}"
        names = subprocess.run(["podman", "--root", f"{store}/root", "--runroot", f"{store}/run", "--tmpdir",
                                f"{store}/tmp", "--storage-driver", "vfs", "ps", "--all", "--format", "{{.Names}}"],
                               check=True, capture_output=True, text=True).stdout
        harness.check(run_name[-6:] not in names, f"podman still knows {names}")
