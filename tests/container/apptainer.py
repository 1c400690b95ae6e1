"""Apptainer for tests: the one in PATH, or Debian unstable's packages unpacked into a folder of the project's cache.

Debian 12 has no Apptainer. Its programs from unstable need a newer C library than Debian 12 has, so that comes along,
and they are told to load it (patchelf); nothing is installed, and no set-uid program is needed.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import urllib.request

import harness

FOLDER = harness.ROOT / ".cache/apptainer-1.4.5"
# (path in Debian's archive, sha256) of amd64's unstable in 2026-11.
PACKAGES = (
    ("a/apptainer/apptainer_1.4.5-2_amd64.deb", "26cf96e08fccb0e50ea0f285a5a19f940ee873d167a0680584fe6eba7d197d65"),
    ("g/glibc/libc6_2.43-7_amd64.deb", "5c71715c51103beb4fbba9fe9f8dff604af6610dfa71c70bff342f54a7860803"),
    ("libs/libseccomp/libseccomp2_2.6.1-1+b2_amd64.deb",
     "2d97c9f6ce55043caff1f6818ff9f85693528604f9d7538bd1ff61a492db8567"),
    ("s/sqlite3/libsqlite3-0_3.53.4-2_amd64.deb", "bbf13c9326764d05e37e6590debdaa6f33af6bd822e3ca1204789d9d1dc23b11"),
)


def find():
    """(path of apptainer, "") or (None, why there is none)."""
    if in_path := shutil.which("apptainer"):
        return pathlib.Path(in_path), ""
    program = FOLDER / "usr/bin/apptainer"
    if not program.exists():
        try:
            fetch()
        except (OSError, subprocess.CalledProcessError, harness.Failure) as problem:
            return None, ("APPTAINER IS NOT TESTED: no apptainer in PATH, and Debian's package was not to be had: "
                          f"{problem}")
    return program, ""


def archive():
    """The Debian archive that this machine's apt uses; the packages are in its pool, whatever the suite."""
    targets = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"],
                             check=True, capture_output=True, text=True).stdout.splitlines()
    for target in targets:
        address, _, origin = target.partition(" ")
        if origin == "Debian" and address.rstrip("/").endswith("/debian"):
            return address.rstrip("/")
    raise harness.Failure("apt has no Debian archive among its sources")


def unpack(path, sha256, folder):
    """Fetches one package of Debian's archive, whatever its release, and unpacks it into the folder."""
    address = f"{archive()}/pool/{path}"
    try:
        with urllib.request.urlopen(address, timeout=60) as source:
            package = source.read()
    except OSError as error:     # URLError is one, and so is a timeout
        raise harness.Failure(f"{address}: {error} (gone from Debian? then pin the next version)")
    found = hashlib.sha256(package).hexdigest()
    harness.check(found == sha256, f"{address} has sha256 {found}, expected {sha256}")
    subprocess.run(["dpkg-deb", "--extract", "/dev/stdin", folder], input=package, check=True)


def fetch():
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as work:
        unpacked = pathlib.Path(work, "unpacked")
        for path, sha256 in PACKAGES:
            unpack(f"main/{path}", sha256, unpacked)
        make_relocatable(unpacked)
        subprocess.run([unpacked / "usr/bin/apptainer", "--version"], check=True, stdout=subprocess.DEVNULL)
        # The programs name the folder's final place, so that is made last: what is there is whole.
        make_relocatable(unpacked, FOLDER)
        os.rename(unpacked, FOLDER)


def make_relocatable(folder, final=None):
    libraries = pathlib.Path("usr/lib/x86_64-linux-gnu")
    place = (final or folder) / libraries
    programs = (folder / "usr/bin/apptainer", folder / libraries / "apptainer/bin/starter")
    for program in programs:
        subprocess.run(["patchelf", "--set-interpreter", place / "ld-linux-x86-64.so.2", program], check=True)
    for file in (*programs, folder / libraries / "libsqlite3.so.0", folder / libraries / "libseccomp.so.2"):
        subprocess.run(["patchelf", "--force-rpath", "--set-rpath", place, file.resolve()], check=True)
    if not final:
        # It looks for its settings and its mount point beside its programs: /usr/etc, /usr/lib/var, /usr/lib/etc.
        shutil.move(folder / "etc", folder / "usr/etc")
        (folder / "usr/lib/var/lib/apptainer/mnt/session").mkdir(parents=True)
        (folder / "usr/lib/etc").symlink_to("../etc")
