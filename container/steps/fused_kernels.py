"""Compiles the fused softmax kernels of Megatron-DeepSpeed into modules that `import` finds.

    fused_kernels.py FOLDER ARCHITECTURES          e.g. /opt/megatron-deepspeed "8.0;9.0"
"""
import os
import pathlib
import shutil
import sys
import sysconfig

NAMES = ("scaled_upper_triang_masked_softmax", "scaled_masked_softmax", "scaled_softmax")
# As its own loader compiles them.
CUDA_FLAGS = ["-O3", "--use_fast_math", "-U__CUDA_NO_HALF_OPERATORS__", "-U__CUDA_NO_HALF_CONVERSIONS__",
              "--expt-relaxed-constexpr", "--expt-extended-lambda"]


def main(folder, architectures):
    os.environ["TORCH_CUDA_ARCH_LIST"] = architectures
    from torch.utils import cpp_extension
    kernels, build = pathlib.Path(folder, "megatron/fused_kernels"), pathlib.Path("fused_kernels_build")
    build.mkdir()
    for name in NAMES:
        library = cpp_extension.load(
            name=f"{name}_cuda", sources=[str(kernels / f"{name}.cpp"), str(kernels / f"{name}_cuda.cu")],
            build_directory=str(build), extra_cflags=["-O3"], extra_cuda_cflags=CUDA_FLAGS, is_python_module=False)
        shutil.copy(library or build / f"{name}_cuda.so", sysconfig.get_path("platlib"))
    shutil.rmtree(build)


if __name__ == "__main__":
    main(*sys.argv[1:])
