"""The trainer compiles with what pytorch-2.5.0 pins, CUDA 12.4, NCCL 2.21 and PyTorch 2.5.0: every source file, those
of the CUDA plug-in among them, is read by g++ with those headers, and the kernels are compiled for A100 and H100 by
NVRTC 12.4, which is the compiler that nvcc 12.4 has inside. Neither needs a GPU or the CUDA toolkit.

    pinned_cuda.py [--build FOLDER] --packages FOLDER

--packages is where requirements-pytorch-2.5.0.txt was installed: the image's dist-packages, or a site-packages.
NVRTC has no C++ library and compiles nothing for the host, so it takes host functions for device functions, and the few
names of the library that they use from HOST_HEADERS; the kernels themselves are compiled as they stand.
"""
import concurrent.futures
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

KERNELS = harness.ROOT / "trainer/cuda/kernels.cu"
ARCHITECTURES = ("sm_80", "sm_90")
# The headers in crt/ belong to nvcc's own package.
NVCC = ("nvidia-cuda-nvcc-cu12==12.4.131 "
        "--hash=sha256:e4c9a35435c3b0e36c6397c5696334c9ea6650e524736cbd1c5d345ea099bb04\n")
HOST_HEADERS = {
    "cstdint": """#pragma once
typedef signed char int8_t; typedef short int16_t; typedef int int32_t; typedef long int64_t;
typedef unsigned char uint8_t; typedef unsigned short uint16_t; typedef unsigned uint32_t;
typedef unsigned long uint64_t; typedef unsigned long uintptr_t;
""",
    "algorithm": """#pragma once
#define INFINITY __int_as_float(0x7f800000)
namespace std {
template <class I, class F> constexpr bool all_of(I i, I end, F f) {
  while (i != end) if (!f(*i++)) return false;
  return true;
}
template <class T> constexpr const T& min(const T& a, const T& b) { return b < a ? b : a; }
template <class T> constexpr const T& clamp(const T& v, const T& a, const T& b) { return v < a ? a : b < v ? b : v; }
template <class T, T v> struct integral_constant { static constexpr T value = v; };
template <class T> struct remove_pointer;
template <class T> struct remove_pointer<T*> { using type = T; };
template <class T> using remove_pointer_t = typename remove_pointer<T>::type;
}
template <class F> cudaError_t cudaFuncSetAttribute(F* kernel, cudaFuncAttribute attribute, int value);
""",
}


def nvcc_headers(work):
    """The folder with crt/."""
    requirement = work / "nvcc.txt"
    requirement.write_text(NVCC)
    target = work / "nvcc"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
                    "--root-user-action=ignore", "--target", target, "-r", requirement], check=True)
    return target / "nvidia/cuda_nvcc/include"


def compile_host(packages, headers, source):
    """What g++ says of one source file, "" if nothing."""
    folders = [packages / "torch/include", headers, *sorted(packages.glob("nvidia/*/include"))]
    words = [word for folder in folders for word in ("-isystem", folder)]
    # Wheels before 2.6 have the old layout of std::string.
    run = subprocess.run([os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra",
                          "-D_GLIBCXX_USE_CXX11_ABI=0", '-DMDS_VERSION="0"', "-I", harness.ROOT, *words, source],
                         capture_output=True, text=True)
    return run.stderr + ("" if run.returncode == 0 else f"{source}: exit code {run.returncode}\n")


class Nvrtc:
    """The library's C interface, as far as it is wanted here; a call that fails is a harness.Failure."""

    def __init__(self, packages):
        self.packages = packages
        self.library = ctypes.CDLL(str(packages / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def text(self, what, program):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value + 1)
        getattr(self.library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw[:size.value]

    def compile(self, source, architecture, headers):
        """(machine code, PTX)."""
        program = ctypes.c_void_p()
        names = (ctypes.c_char_p * len(HOST_HEADERS))(*(name.encode() for name in HOST_HEADERS))
        texts = (ctypes.c_char_p * len(HOST_HEADERS))(*(text.encode() for text in HOST_HEADERS.values()))
        self.library.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(),
                                        len(HOST_HEADERS), texts, names)
        folders = (harness.ROOT, self.packages / "nvidia/cuda_runtime/include", headers)
        # Host functions as device functions that launch kernels: separate compilation leaves the launch itself open.
        words = [f"--gpu-architecture={architecture}", "--std=c++20", "--device-as-default-execution-space",
                 "--relocatable-device-code=true", *(f"--include-path={folder}" for folder in folders)]
        options = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
        code = self.library.nvrtcCompileProgram(program, len(words), options)
        log = self.text("ProgramLog", program).rstrip(b"\0").decode()
        harness.check(code == 0 and "error" not in log, f"NVRTC {self.version}, {architecture}: {log[:4000]}")
        return self.text("CUBIN", program), self.text("PTX", program).decode(errors="replace")


def check(packages, work):
    """Raises harness.Failure with what the compilers say."""
    begin = time.monotonic()
    headers = nvcc_headers(work)
    sources = sorted((harness.ROOT / "trainer").rglob("*.cpp"))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda source: compile_host(packages, headers, source), sources))
    harness.check(not any(said), "".join(said)[:6000])
    version = (packages / "torch/version.py").read_text()
    print(f"{len(sources)} files of the trainer compile with PyTorch {re.search('[0-9][0-9.]+', version)[0]} and "
          f"CUDA's headers, {time.monotonic() - begin:.0f} s", flush=True)
    compiler = Nvrtc(packages)
    names = set(re.findall(r"(\w+_kernel)\(", KERNELS.read_text()))
    harness.check(len(names) >= 9, f"these kernels were found in {KERNELS}: {names}")
    for architecture in ARCHITECTURES:
        code, ptx = compiler.compile(KERNELS, architecture, headers)
        entries = re.findall(r"\.entry (\S+)\(", ptx)
        lacking = {name for name in names if not any(name in entry for entry in entries)}
        harness.check(code.startswith(b"\x7fELF") and not lacking,
                      f"{architecture}: {len(code)} bytes of machine code without {lacking}")
        print(f"{KERNELS.name}: {len(entries)} kernels for {architecture} by NVRTC {compiler.version}", flush=True)


def test(launcher, arguments):
    check(pathlib.Path(arguments.packages).resolve(), launcher.work)
    return 0


def add_arguments(parser):
    parser.add_argument("--packages", required=True)


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
