"""Two changes to Megatron-DeepSpeed f4157be, each refused where the source is not as expected.

    patch_megatron.py FOLDER

1. The attention's inputs are not contiguous on CPUs, where .view() wants them to be: .reshape() takes both.
2. Fused kernels that are installed are imported, not compiled: every rank of a job would otherwise wait for rank 0, and
   an image is read-only.
"""
import pathlib
import sys

LOAD = "def load(args):\n"
IMPORT = LOAD + """
    names = ("scaled_upper_triang_masked_softmax_cuda", "scaled_masked_softmax_cuda", "scaled_softmax_cuda")
    if all(importlib.util.find_spec(name) for name in names):
        for name in names:
            importlib.import_module(name)
        return
"""


def change(path, begin, end, old, new):
    text = path.read_text()
    first, last = text.index(begin), text.index(end) if end else len(text)
    part = text[first:last]
    if old not in part:
        sys.exit(f"{path}: expected {old!r} after {begin!r}")
    path.write_text(text[:first] + part.replace(old, new) + text[last:])


def main(folder):
    change(folder / "megatron/model/transformer.py", "class CoreAttention", "class FlashSelfAttention", ".view(",
           ".reshape(")
    kernels = folder / "megatron/fused_kernels/__init__.py"
    change(kernels, "import os\n", LOAD, "import os\n", "import importlib.util\nimport os\n")
    change(kernels, LOAD, None, LOAD, IMPORT)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
