#!/usr/bin/env python3
"""The house rules, as a test: what a reviewer would otherwise have to say again and again. Standard library only.

Prints every violation as "file:line: what is wrong"; exit code 1 if there is one.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINE_LENGTH_MAX = 120
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 80
LONGER_FILES = set()  # empty, and to stay so

SOURCES = {".cpp", ".hpp", ".cu", ".cuh", ".py", ".cmake", ".sh"}
TEXTS = SOURCES | {".md", ".txt", ".toml", ".json", ".yml", ""}
OUR_FOLDERS = ("topology", "agent", "trainer", "launcher", "slurm", "container")
BANNED_NAMES = {"util", "utils", "common", "misc", "helper", "helpers"}
# Written in pieces, so that this file obeys its own rule: installing goes through the machine's own settings.
REGISTRY_HOSTS = re.compile("|".join(("py" r"pi\.org", "python" "hosted", r"deb\.debian" r"\.org",
                                      r"archive\.ubuntu", r"download\.py" r"torch", r"download\.nvidia")))

# Who may include whom (docs/architecture.md). A folder may include itself and what its patterns match;
# topology/result.hpp is the bottom layer that everybody may include.
BOTTOM = r"topology/result\.hpp"
MAY_INCLUDE = {
    "topology": [],
    "container": [],
    "slurm": [],
    "agent": [r"topology/", r"container/"],
    "trainer": [r"topology/rank_grid\.hpp", r"agent/rank_control\.hpp"],
    # Of the trainer what needs no LibTorch (the library mds_trainer_config).
    "launcher": [r"topology/", r"agent/", r"slurm/", r"container/", r"trainer/(config|presets)\.hpp",
                 r"trainer/model/hugging_face_config\.hpp"],
}
LIBTORCH_FREE = ("topology", "agent", "launcher", "slurm", "container")
TYPE_OR_TABLE = re.compile(r"(namespace|template|struct|class|enum|union|extern|static const|const)\b[^(]*$")
LIBTORCH = re.compile(r"(ATen|c10|torch)/")


def main():
    files = listed_files()
    problems = [problem for path in files for problem in check_file(path)]
    problems += unused_headers(files)
    for problem in sorted(problems):
        print(problem)
    print(f"style: {len(files)} files, {len(problems)} problems")
    return 1 if problems else 0


def listed_files():
    """What git tracks or would track; every file of an unpacked archive."""
    git = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, text=True,
                         capture_output=True)
    names = git.stdout.split("\0") if git.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    paths = (pathlib.Path(name) for name in names if name and not name.startswith((".venv", "build", ".git/")))
    return sorted(path for path in paths if path.suffix in TEXTS and (ROOT / path).is_file())


def check_file(path):
    text = (ROOT / path).read_text(errors="replace")
    lines = text.splitlines()
    if banned := BANNED_NAMES & {part.split(".")[0] for part in path.parts}:
        yield f"{path}:1: a name that says nothing: {', '.join(banned)}"
    if text and not text.endswith("\n"):
        yield f"{path}:{len(lines)}: no newline at the end"
    for number, line in enumerate(lines, 1):
        yield from (f"{path}:{number}: {what}" for what in check_line(path, line))
    if path.suffix in SOURCES and len(lines) > FILE_LINES_MAX and str(path) not in LONGER_FILES:
        yield f"{path}:{len(lines)}: longer than {FILE_LINES_MAX} lines; is it one idea?"
    if path.suffix in (".hpp", ".cuh"):
        yield from check_header(path, lines)
    if path.suffix in (".cpp", ".hpp", ".cu", ".cuh"):
        yield from long_functions(path, lines)
        yield from check_includes(path, lines)


def check_line(path, line):
    if REGISTRY_HOSTS.search(line):
        yield "names a package registry's host"
    if path.suffix not in SOURCES:
        return
    if len(line) > LINE_LENGTH_MAX:
        yield f"{len(line)} columns, more than {LINE_LENGTH_MAX}"
    if "\t" in line:
        yield "a tab"
    if line != line.rstrip():
        yield "white space at the end"
    if re.search(r"\b(TO" r"DO|FIX" r"ME)\b", line):
        yield "unfinished work belongs into an issue"


def check_header(path, lines):
    if "#pragma once" not in lines:
        yield f"{path}:1: no #pragma once"
    if not lines or not lines[0].startswith("//"):
        yield f"{path}:1: does not open with a comment on what it is"


def long_functions(path, lines):
    """A function that starts in column 0 (its signature may go on in indented lines) and ends with '}' in column 0."""
    begin, signature = None, None
    for number, line in enumerate(lines, 1):
        if begin is None:
            if re.match(r"[A-Za-z_~:]", line):
                signature = number
            elif not line.startswith("    "):
                signature = None
            if signature and re.search(r"[\w)>:] \{$", line) and not TYPE_OR_TABLE.match(lines[signature - 1]):
                begin = signature
        elif line.startswith("}"):
            if number - begin > FUNCTION_LINES_MAX and "TEST_CASE" not in lines[begin - 1]:
                yield f"{path}:{begin}: a function of {number - begin} lines, more than {FUNCTION_LINES_MAX}"
            begin, signature = None, None


def includes(lines):
    for number, line in enumerate(lines, 1):
        if match := re.match(r'\s*#\s*include\s*["<]([^">]+)[">]', line):
            yield number, match.group(1)


def check_includes(path, lines):
    folder = path.parts[0]
    if folder not in MAY_INCLUDE:
        return
    allowed = [BOTTOM, folder + "/", *MAY_INCLUDE[folder]]
    if re.match(r"trainer/(config|presets)", str(path)):
        allowed = [BOTTOM, r"trainer/(config|presets)[a-z_]*\.hpp"]
    for number, name in includes(lines):
        if name.startswith(tuple(f"{other}/" for other in OUR_FOLDERS)):
            if not any(re.match(pattern, name) for pattern in allowed):
                yield f"{path}:{number}: {folder} may not include {name}"
        elif folder in LIBTORCH_FREE and LIBTORCH.match(name):
            yield f"{path}:{number}: {folder} may not include LibTorch ({name})"


def unused_headers(files):
    used = set()
    for path in files:
        if path.suffix in (".cpp", ".hpp", ".cu", ".cuh"):
            used |= {name for _, name in includes((ROOT / path).read_text(errors="replace").splitlines())}
    for path in files:
        if path.suffix in (".hpp", ".cuh") and not {str(path), path.name} & used:
            yield f"{path}:1: nobody includes this header"


if __name__ == "__main__":
    sys.exit(main())
