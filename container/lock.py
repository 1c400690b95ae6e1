#!/usr/bin/env python3
"""Resolves requirements-NAME.in into requirements-NAME.txt: each package at one version, with the sha256 of the file
that pip would take on each machine type. Images install from the .txt alone, with --require-hashes.

    container/lock.py NAME...                 (Linux, Python 3.11, glibc of Debian 12; asks pip's configured index)

A line "# platforms: x86_64 aarch64" in the .in file says for which machines; "# on top of: NAME" keeps to the versions
of another lock and leaves out what that one has; "# sources: PACKAGE==VERSION" takes a package that has no wheels;
"# without dependencies: all" locks what is named and no more.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
GLIBC_MAX = 36        # Debian 12
OLD_NAMES = {"x86_64": ["manylinux1", "manylinux2010", "manylinux2014"], "aarch64": ["manylinux2014"]}
HEADER = "# Made by container/lock.py {name} from requirements-{name}.in: change that file, not this one.\n"


def main():
    for name in sys.argv[1:] or sys.exit(__doc__):
        path = HERE / f"requirements-{name}.txt"
        path.write_text(HEADER.format(name=name) + "\n".join(lock(name)) + "\n")
        print(path.relative_to(HERE.parent))


def lock(name):
    text = (HERE / f"requirements-{name}.in").read_text()
    below = setting(text, "on top of")
    constraints = HERE / f"requirements-{below[0]}.txt" if below else None
    have = versions(constraints.read_text()) if constraints else {}
    platforms = setting(text, "platforms") or ["x86_64"]
    found = {}            # (package, version) -> {platform: sha256}
    for platform in platforms:
        for package in resolve(text, platform, have) + [source(package) for package in setting(text, "sources")]:
            found.setdefault(package[:2], {})[platform] = package[2]
    for (package, version), hashes in sorted(found.items()):
        if package in have:
            continue
        only = sorted(set(platforms) - set(hashes))
        marker = "".join(f' ; platform_machine == "{p}"' for p in hashes) if only else ""
        yield f"{package}=={version}{marker} \\"
        yield " \\\n".join(f"    --hash=sha256:{sha256}" for sha256 in sorted(set(hashes.values())))


def setting(text, key):
    match = re.search(rf"^# {key}: (.*)$", text, re.MULTILINE)
    return match.group(1).split() if match else []


def versions(text):
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def platform_tags(machine):
    """Every manylinux name that a wheel for this machine and glibc may carry."""
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MAX, 4, -1)]
    return names + [f"{old}_{machine}" for old in OLD_NAMES[machine]]


def resolve(text, machine, have):
    """[(package, version, sha256)] of what pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, known = pathlib.Path(folder, "wanted"), pathlib.Path(folder, "known")
        wanted.write_text(text)
        known.write_text("".join(f"{package}=={version}\n" for package, version in have.items()))
        tags = [word for tag in platform_tags(machine) for word in ("--platform", tag)]
        alone = ["--no-deps"] if setting(text, "without dependencies") else []
        return report(folder, *alone, "--only-binary=:all:", "--python-version", "3.11", *tags, "--target", folder,
                      "-r", str(wanted), "-c", str(known))


def source(package):
    with tempfile.TemporaryDirectory() as folder:
        return report(folder, "--no-deps", "--no-binary", ":all:", package)[0]


def report(folder, *arguments):
    path = pathlib.Path(folder, "report.json")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
                    "--report", str(path), *arguments], check=True)
    return [(re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(), item["metadata"]["version"],
             item["download_info"]["archive_info"]["hashes"]["sha256"])
            for item in json.loads(path.read_text())["install"]]


if __name__ == "__main__":
    main()
