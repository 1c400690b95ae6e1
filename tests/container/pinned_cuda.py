"""mdstrain and its CUDA plug-in are built with what pytorch-2.5.0 pins: PyTorch 2.5.0, NCCL 2.21 and CUDA 12.4, by nvcc
12.4 (cuda_toolkit.py), without a warning. The plug-in has machine code of every kernel for A100 and H100, and each
symbol that it names is found; mdstrain trains on the CPU with that PyTorch. None of it needs a GPU.

    pinned_cuda.py [--build FOLDER] --packages FOLDER

--packages is where requirements-pytorch-2.5.0.txt was installed: the image's dist-packages, or a site-packages.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import cuda_toolkit  # noqa: E402

KERNELS = harness.ROOT / "trainer/cuda/kernels.cu"
ARCHITECTURES = ("sm_80", "sm_90")
# Every symbol is resolved at once.
LOAD = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], os.RTLD_NOW)"


def run(*command):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    harness.check(done.returncode == 0, f"{' '.join(map(str, command[:4]))} ... ended with {done.returncode}:\n"
                  f"{done.stdout[-5000:]}")
    return done.stdout


def build(packages, toolkit, folder):
    """Into the folder; a warning is a failure."""
    # Wheels before 2.6 have the old layout of std::string.
    run("cmake", "-G", "Ninja", "-S", harness.ROOT, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF",
        "-DMDS_CUDA=ON", "-DCMAKE_CXX_FLAGS=-D_GLIBCXX_USE_CXX11_ABI=0", f"-DCMAKE_PREFIX_PATH={packages / 'torch'}",
        f"-DCUDAToolkit_ROOT={toolkit}")
    # A file that includes ATen takes up to 1.5 GB to compile.
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    jobs = max(1, min(os.cpu_count(), int(memory / 1.5e9)))
    said = run("cmake", "--build", folder, "--parallel", jobs, "--target", "mdstrain", "mds_cuda")
    warned = [line for line in said.splitlines() if "warning" in line]
    harness.check(not warned, "\n".join(warned)[:6000])


def train(launcher, folder):
    """Two losses. mdslaunch starts the mdstrain that lies beside it."""
    for name in ("mdslaunch", "mdsagent"):
        shutil.copy2(launcher.program.parent / name, folder / "bin")
    beside = harness.Launcher(folder, launcher.work)
    run = beside.run(beside.job(harness.small_job(steps=2))).expect(0)
    losses = [float.fromhex(loss) for loss in run.losses().values()]
    harness.check(len(losses) == 2 and all(5 < loss < 6 for loss in losses), f"losses: {losses}")
    return losses


def check(launcher, packages):
    """Raises harness.Failure with what the compilers say."""
    begin = time.monotonic()
    toolkit, folder = launcher.work / "cuda", launcher.work / "pinned"
    cuda_toolkit.assemble(packages, toolkit)
    build(packages, toolkit, folder)
    plugin = folder / "lib/libmds_cuda.so"
    kernels = set(re.findall(r"(\w+_kernel)\(", KERNELS.read_text()))
    harness.check(len(kernels) >= 9, f"these kernels were found in {KERNELS}: {kernels}")
    for architecture in ARCHITECTURES:
        listed = run(toolkit / "bin/cuobjdump", "--gpu-architecture", architecture, "--dump-elf-symbols", plugin)
        lacking = {name for name in kernels if name not in listed}
        harness.check(not lacking, f"{plugin.name} has no machine code for {architecture} of {lacking}")
    run(sys.executable, "-c", LOAD, plugin)
    losses = train(launcher, folder)
    version = re.search("[0-9][0-9.]+", (packages / "torch/version.py").read_text())[0]
    print(f"mdstrain with PyTorch {version} trained two steps on the CPU: {losses}", flush=True)
    print(f"mdstrain and {plugin.name}: {len(kernels)} kernels for {', '.join(ARCHITECTURES)} by nvcc "
          f"{re.search('V([0-9.]+)', run(toolkit / 'bin/nvcc', '--version'))[1]}, {time.monotonic() - begin:.0f} s")


def test(launcher, arguments):
    check(launcher, pathlib.Path(arguments.packages).resolve())
    return 0


def add_arguments(parser):
    parser.add_argument("--packages", required=True)


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
