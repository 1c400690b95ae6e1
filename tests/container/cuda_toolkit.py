"""CUDA 12.4's toolkit for tests, without NVIDIA's image: nvcc from Debian 13's section non-free, which is the same
12.4.131; headers and libraries of the wheels that requirements-pytorch-2.5.0.txt pins; crt/, which those wheels do not
have, from nvcc's own wheel, and CCCL from Debian. Nothing is installed. All downloads are held to a sha256.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import apptainer
import harness

FOLDER = harness.ROOT / ".cache/cuda-12.4.131"
# (path in Debian's archive, sha256) of amd64's Debian 13.
PACKAGES = (
    ("non-free/n/nvidia-cuda-toolkit/nvidia-cuda-toolkit_12.4.131~12.4.1-2_amd64.deb",
     "cd5fe85aee38d108b315f408a688641478f2402622a10c677478eb7a6c4e5319"),
    ("non-free/n/nvidia-cuda-toolkit/libnvvm4_12.4.131~12.4.1-2_amd64.deb",
     "3c905c1df7453e1ad477516c4465629c310d2f58a796d66f44070dc289e7ec12"),
    ("main/c/cccl/libcu++-dev_2.3.2-2_all.deb", "30e911c1909265591b5ea793df0e49e56bed631238b68b3e75c97590c4985686"),
    ("main/c/cccl/libcub-dev_2.3.2-2_all.deb", "4a7e7c24ef2994140e47dba59507db60e281f968f17c18cf1cadc9c27c17c26b"),
    ("main/c/cccl/libthrust-dev_2.3.2-2_all.deb", "61fe44b65834efad9b079452ebec7396d4b37712d251421f4218b3bc652a3147"),
)
NVCC_WHEEL = ("nvidia-cuda-nvcc-cu12==12.4.131 "
              "--hash=sha256:e4c9a35435c3b0e36c6397c5696334c9ea6650e524736cbd1c5d345ea099bb04\n")
# Where nvcc looks for its parts, relative to itself, as in NVIDIA's own layout.
PROFILE = """TOP = $(_HERE_)/..
CICC_PATH = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64"
"""


def assemble(packages, toolkit):
    """Makes the folder `toolkit`, with the headers and links to the libraries of the wheels that are installed in
    `packages`. harness.Failure if something is not to be had."""
    if not FOLDER.exists():
        fetch()
    shutil.copytree(FOLDER, toolkit)
    libraries = toolkit / "lib64"
    libraries.mkdir()
    for wheel in sorted(packages.glob("nvidia/*")):
        if (wheel / "include").is_dir():
            shutil.copytree(wheel / "include", toolkit / "include", dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("__*__*"))
        for library in wheel.glob("lib/lib*.so.*"):
            (libraries / library.name).symlink_to(library)
            (libraries / library.name.split(".so.")[0]).with_suffix(".so").symlink_to(library.name)


def fetch():
    """What needs no wheel of PyTorch's, into the cache."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as work:
        debian, wheel, toolkit = (pathlib.Path(work, name) for name in ("debian", "wheel", "toolkit"))
        for path, sha256 in PACKAGES:
            apptainer.unpack(path, sha256, debian)
        requirement = pathlib.Path(work, "nvcc.txt")
        requirement.write_text(NVCC_WHEEL)
        run = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
                              "--root-user-action=ignore", "--target", wheel, "-r", requirement], capture_output=True)
        harness.check(run.returncode == 0, f"nvcc's wheel: {run.stderr.decode()}")
        compiler(debian / "usr", toolkit)
        shutil.copytree(debian / "usr/include", toolkit / "include")
        shutil.copytree(wheel / "nvidia/cuda_nvcc/include/crt", toolkit / "include/crt")
        subprocess.run([toolkit / "bin/nvcc", "--version"], check=True, stdout=subprocess.DEVNULL)
        os.rename(toolkit, FOLDER)


def compiler(debian, toolkit):
    """Debian's files in NVIDIA's layout."""
    parts = debian / "lib/nvidia-cuda-toolkit"
    for folder in ("bin", "nvvm/bin", "nvvm/lib64"):
        (toolkit / folder).mkdir(parents=True)
    shutil.copytree(parts / "libdevice", toolkit / "nvvm/libdevice")
    shutil.copytree(parts / "bin/crt", toolkit / "bin/crt")
    shutil.copy2(parts / "bin/cicc", toolkit / "nvvm/bin")
    shutil.copy2(debian / "lib/x86_64-linux-gnu/libnvvm.so.4", toolkit / "nvvm/lib64")
    shutil.copy2(parts / "bin/nvcc", toolkit / "bin")
    for name in ("bin2c", "cudafe++", "cuobjdump", "fatbinary", "nvlink", "ptxas"):
        shutil.copy2(debian / "bin" / name, toolkit / "bin")
    (toolkit / "bin/nvcc.profile").write_text(PROFILE)
