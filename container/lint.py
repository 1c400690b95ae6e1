#!/usr/bin/env python3
"""What must hold of the images' recipes, as far as it can be seen without building them. Standard library only.

    container/lint.py                  prints "file: what is wrong"; exit code 1 if anything is

A definition file and the Containerfile of the same name are one recipe in two languages: they must take the same steps
from the same pinned bases, and set the same environment.
"""
import dataclasses
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
SECTIONS = {"arguments", "files", "post", "environment", "test", "labels", "help"}
FINAL_SECTIONS = SECTIONS - {"files"}
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
FETCHES = re.compile(r"\b(curl|wget|pip3?|apt|apt-get|git|conda)\b")
# What a recipe's own lines may do; whatever fetches stands in steps/, where both languages share it.
PLAIN = re.compile(r"(export|cd|rm|mkdir|ln|find|steps/|/opt/mds-build/steps/|PATH=\S+ steps/)")


@dataclasses.dataclass
class Stage:
    """One stage of a definition file: headers, and sections with their lines."""
    header: dict
    sections: dict

    def arguments(self):
        pairs = (line.split("=", 1) for line in self.sections.get("arguments", []) if not line.startswith("#"))
        return dict(pairs)

    def filled(self, text):
        for name, value in self.arguments().items():
            text = text.replace("{{ %s }}" % name, value)
        return text


def stages(text):
    found, section = [], None
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("Bootstrap:"):
            found.append(Stage({}, {}))
            section = None
        if match := re.match(r"%(\w+)(.*)", line):
            section = found[-1].sections.setdefault((match[1] + match[2]).strip(), [])
        elif section is not None and line:
            section.append(line)
        elif found and ":" in line and not line.startswith("#"):
            key, value = line.split(":", 1)
            found[-1].header[key] = value.strip()
    return found


def check_definition(text):
    """Problems of one definition file."""
    all_stages = stages(text)
    defaults = {}
    for stage in all_stages:
        where = f"stage {stage.header.get('Stage', '?')}"
        yield from (f"{where}: {what}" for what in check_stage(stage))
        for name, value in stage.arguments().items():
            if defaults.setdefault(name, value) != value:
                yield f"{where}: argument {name} has another default than in the stage before"
    last = all_stages[-1].sections
    yield from (f"the last stage has no %{name}" for name in sorted(FINAL_SECTIONS - set(last)))
    if "mds-image-test" not in last.get("test", []):
        yield "%test does not run mds-image-test"
    for name in ("PATH", "LC_ALL"):
        if not any(line.startswith(f"export {name}=") for line in last.get("environment", [])):
            yield f"%environment does not set {name}: `exec` would have the host's or none"


def check_stage(stage):
    for name in sorted({section.split()[0] for section in stage.sections} - SECTIONS):
        yield f"%{name} is not used here" + (": it runs on the host, outside of any container" * (name == "setup"))
    base, bootstrap = stage.filled(stage.header.get("From", "")), stage.filled(stage.header["Bootstrap"])
    if bootstrap == "docker" and not DIGEST.search(base):
        yield f"From: {base} is not pinned by @sha256:"
    if bootstrap == "localimage" and "Fingerprints" not in stage.header:
        yield "a local image without Fingerprints: nobody could demand its signature"
    body = [*stage.header.values(), *(line for name, lines in stage.sections.items() for line in lines)]
    used = set(re.findall(r"\{\{ (\w+) \}\}", "\n".join(body)))
    yield from (f"{{{{ {name} }}}} is no argument of this stage" for name in sorted(used - set(stage.arguments())))
    yield from (f"argument {name} is used nowhere" for name in sorted(set(stage.arguments()) - used))
    yield from check_steps(stage.sections.get("post", []), used)
    for line in stage.sections.get("files", []):  # not those of "files from STAGE"
        source = stage.filled(line).split()[0]
        if not (HERE.parent / source).exists():
            yield f"%files: {source} does not exist"


def check_steps(lines, used):
    """The commands of %post or RUN: nothing that fetches, and the mirrors' arguments where they count."""
    for line in lines:
        if line.startswith("#"):
            continue
        if FETCHES.search(line) or not PLAIN.match(line):
            yield f"'{line}' belongs into steps/"
        if "steps/packages.sh" in line and "apt_mirror" not in used:
            yield f"'{line}' without the argument apt_mirror"
        if re.search(r"steps/(wheels|deepspeed)\.sh", line) and "wheel_index" not in used:
            yield f"'{line}' without the argument wheel_index"


def containerfile_lines(text):
    """Instructions, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def check_containerfile(text):
    lines = containerfile_lines(text)
    for line in lines:
        if match := re.match(r"ARG (base|toolkit)=(.*)", line):
            if not DIGEST.search(match[2]):
                yield f"{match[1]} {match[2]} is not pinned by @sha256:"
        elif match := re.match(r"FROM (\S+)", line):
            if not match[1].startswith("${"):
                yield f"FROM {match[1]}: name the base by an argument, so that a mirror can take its place"
    if lines[-1] != "RUN mds-image-test":
        yield "the last line is not RUN mds-image-test"


def check_pair(definition, containerfile):
    """What the two languages must have in common."""
    all_stages, lines = stages(definition), containerfile_lines(containerfile)
    wanted = [" ".join(re.findall(r"steps/\w+\.sh[^&]*", line)).strip() for stage in all_stages
              for line in stage.sections["post"] if "steps/" in line and not line.startswith("rm")]
    found = [step.strip() for line in lines if line.startswith("RUN")
             for step in re.findall(r"(?<=[ &])steps/\w+\.sh[^&]*", re.sub(r"--mount=\S+", "", line))]
    if wanted != found:
        yield f"other steps: {wanted} and {found}"
    environment = {line.removeprefix("export ") for line in all_stages[-1].sections["environment"]
                   if line.startswith("export ")}
    if environment != set(next(line for line in lines if line.startswith("ENV "))[4:].split()):
        yield "other environments"
    digests = [set(re.findall(r"sha256:[0-9a-f]{64}", "\n".join(line for line in text.splitlines()
                                                                if not line.startswith("#"))))
               for text in (definition, containerfile)]
    if digests[0] != digests[1]:
        yield "other bases"
    defaults = {name: value for stage in all_stages for name, value in stage.arguments().items()}
    theirs = dict(line[4:].split("=", 1) for line in lines if line.startswith("ARG ") and "=" in line)
    for name in sorted(set(defaults) & set(theirs) - {"base", "toolkit", "image"}):
        if defaults[name] != theirs[name]:
            yield f"argument {name} is {defaults[name]!r} and {theirs[name]!r}"


def check_requirements(wanted, locked):
    """The lock of one requirement file: exact versions with sums, and those that were asked for."""
    locks = dict(re.findall(r"^([\w.-]+)==(\S+)", locked, re.MULTILINE))
    for line in re.sub(r"\\\n", "", locked).splitlines():
        if line.startswith("#"):
            continue
        if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line):
            yield f"'{line[:60]}' is not pinned by version and sha256"
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", wanted, re.MULTILINE):
        if locks.get(name) != version:
            yield f"{name} is {version} in the .in file and {locks.get(name)} in the lock: container/lock.py"


def check_step(text):
    """One script of steps/."""
    if "set -euo pipefail" not in text and "set -eu" not in text:
        yield "goes on after a command that failed"
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if re.match(r"\s*[^#]*pip install", line) and not re.search(r"--no-index|\$\{options\[@\]\}", line):
            yield f"'{line.strip()}' takes what it finds, without a sum"
    for name, value in re.findall(r"^(\w+_COMMIT)=(\S+)", text, re.MULTILINE):
        if not re.fullmatch(r"[0-9a-f]{7,40}", value):
            yield f"{name}={value} is no commit"
    if "git clone" in text and "checkout --quiet \"$2\"" not in text:
        yield "clones without checking out a pinned commit"


def check_build_packages(packages_sh, setup):
    ours, theirs = (set(re.search(pattern, text, re.DOTALL)[1].split()) for pattern, text in
                    ((r'\[build\]="(.*?)"', packages_sh), (r"build_packages=\((.*?)\)", setup)))
    if ours != theirs:
        yield f"the set 'build' differs from build_packages of .ci/setup: {sorted(ours ^ theirs)}"


def problems():
    readme = (HERE / "README.md").read_text()
    for path in sorted(HERE.glob("*.def")):
        other = HERE / f"Containerfile.{path.stem}"
        text = path.read_text()
        yield from ((path.name, what) for what in check_definition(text))
        yield from ((other.name, what) for what in check_containerfile(other.read_text()))
        yield from ((path.name, f"{other.name} has {what}") for what in check_pair(text, other.read_text()))
        for name in sorted({name for stage in stages(text) for name in stage.arguments()}):
            if f"`{name}`" not in readme:
                yield path.name, f"argument {name} is not explained in README.md"
    for path in sorted(HERE.glob("requirements-*.in")):
        locked = path.with_suffix(".txt")
        yield from ((locked.name, what) for what in check_requirements(path.read_text(), locked.read_text()))
    for path in sorted(HERE.glob("steps/*.sh")):
        yield from ((f"steps/{path.name}", what) for what in check_step(path.read_text()))
    setup = HERE.parent / ".ci/setup"
    yield from (("steps/packages.sh", what) for what in
                check_build_packages((HERE / "steps/packages.sh").read_text(), setup.read_text()))


def main():
    found = [f"container/{name}: {what}" for name, what in problems()]
    print("\n".join(found), end="\n" if found else "")
    print(f"{len(list(HERE.glob('*.def')))} recipes, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
