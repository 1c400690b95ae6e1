"""Builds the project's images from its own recipes on this machine: no registry of images is asked.

The base is a Debian 12 made by mmdebstrap from the machine's own sources. Wheels are fetched by pip on the host, where
it is set up, and given to the build by the recipes' argument for offline builds; their sums are the recipes'. Our own
programs are those of the build under test, which was made on the same Debian, unless --from-source is said.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import time

import harness

CACHE = harness.ROOT / ".cache/images"


def run(command, log, **options):
    """Runs a step with its output in a file; a failure shows the end of it."""
    begin = time.monotonic()
    with open(log, "w") as file:
        code = subprocess.call([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=file,
                               stderr=subprocess.STDOUT, **options)
    harness.check(code == 0, f"{' '.join(map(str, command[:4]))} ... ended with {code}:\n" +
                  log.read_text(errors="replace")[-4000:])
    print(f"{log.stem}: {time.monotonic() - begin:.0f} s", flush=True)


def missing(*programs):
    return [program for program in programs if not shutil.which(program)]


def debian_base(work):
    """A minimal Debian 12 as a folder, as any account could own it: one user, no device nodes."""
    base = CACHE / "debian-12"
    if base.exists():
        return base
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = CACHE / f"debian-12.{os.getpid()}"
    mode = "root" if os.geteuid() == 0 else "unshare"
    run(["mmdebstrap", "--variant=minbase", f"--mode={mode}", "bookworm", unfinished], work / "debian-base.log")
    for device in (unfinished / "dev").iterdir():
        shutil.rmtree(device) if device.is_dir() and not device.is_symlink() else device.unlink()
    subprocess.run(["chown", "-R", "0:0", unfinished], check=True)
    unfinished.rename(base)
    return base


def offline_folder(work, launcher, requirements, megatron=None, from_source=False):
    """What the recipes would fetch: wheels, our programs, Megatron-DeepSpeed."""
    folder = CACHE / "offline" / "-".join(requirements)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for name in requirements:  # one after the other: two images may pin two versions of a package
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
             "--no-build-isolation", "--find-links", wheels, "-d", wheels,
             "-r", harness.ROOT / f"container/requirements-{name}.txt"], work / "wheels.log")
    shutil.rmtree(folder / "programs", ignore_errors=True)
    if not from_source:
        (folder / "programs/bin").mkdir(parents=True)
        for name in ("mdslaunch", "mdsagent", "mdstrain", "mdsstack"):
            shutil.copy2(launcher.program.parent / name, folder / "programs/bin")
    shutil.rmtree(folder / "megatron-deepspeed", ignore_errors=True)
    if megatron:
        place = folder / "megatron-deepspeed"
        if megatron.is_dir():
            shutil.copytree(megatron, place)
        else:
            place.mkdir()
            shutil.copy2(megatron, place)
    return folder


class Apptainer:
    """Builds as root of a user namespace, as an account without privileges does."""

    def __init__(self, program, work):
        self.program, self.work = program, work

    def build(self, name, sandbox=False, definition=None, **arguments):
        """The image file, or with `sandbox` the root folder, which spares packing gigabytes. From the recipe of this
        name, or from another definition file."""
        image = self.work / (name if sandbox else f"{name}.sif")
        words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        definition = definition or harness.ROOT / f"container/{name}.def"
        run(["unshare", "--user", "--map-root-user", self.program, "build",
             *(["--sandbox"] if sandbox else []), *words, image, definition],
            self.work / f"apptainer-{name}.log", cwd=harness.ROOT)
        return image


class Podman:
    """Builds with Buildah, Podman's own builder, in a store of its own; no privilege but mounting."""

    def __init__(self, work):
        self.work = work
        self.store = ["--root", work / "store", "--runroot", work / "runroot", "--storage-driver", "vfs"]

    def take(self, folder, name):
        """A root folder as an image."""
        archive = self.work / "base.tar"
        subprocess.run(["tar", "-C", folder, "-cf", archive, "."], check=True)
        run(["podman", *self.store, "import", archive, f"localhost/{name}"], self.work / "podman-import.log")
        archive.unlink()

    def build(self, name, offline, **arguments):
        words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        run(["buildah", *self.store, "build", "--isolation", "chroot", "--layers=false", "--volume",
             f"{offline}:/opt/mds-build/offline:ro", *words, "--tag", f"localhost/{name}", "--file",
             harness.ROOT / f"container/Containerfile.{name}", harness.ROOT], self.work / f"buildah-{name}.log")

    def archive(self, name):
        """The image's root folder as a tar archive."""
        container = self.answer("from", f"localhost/{name}")
        archive = self.work / f"{name}.tar"
        subprocess.run(["tar", "-C", self.answer("mount", container), "--exclude=./dev/*", "-cf", archive, "."],
                       check=True)
        self.answer("rm", container)
        return archive

    def close(self):
        """Gives back the store's disk space: some gigabytes."""
        self.answer("rmi", "--all", "--force")
        shutil.rmtree(self.work / "store", ignore_errors=True)

    def answer(self, *words):
        command = [str(word) for word in ("buildah", *self.store, *words)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def sha256(path):
    return subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout.split()[0]
