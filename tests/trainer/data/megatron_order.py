"""The order of samples equals that of Megatron-LM's own data set code, for random data sets, splits, epochs and seeds.

Megatron-DeepSpeed's source is not part of this project: a folder or archive named by MDS_MEGATRON_SOURCE, or
../shared/megatron-deepspeed beside the checkout. Of it the data set code runs here as it is; what it imports beside
numpy and torch (deepspeed, its own argument parser and process groups) is replaced by stand-ins.

Without the source the test is skipped (exit code 77), or fails where CI=true.
"""
import argparse
import importlib.util
import os
import pathlib
import random
import subprocess
import sys
import sysconfig
import tempfile
import types

ROOT = pathlib.Path(__file__).resolve().parents[3]
ROUNDS = 40


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    dump = options.build / "bin" / "dump_samples"
    source = find_source()
    if source is None:
        print("SKIPPED: no Megatron-DeepSpeed source; name its folder or archive in MDS_MEGATRON_SOURCE")
        return 1 if os.environ.get("CI") == "true" else 77
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        megatron = Megatron(unpack(source, work), work)
        chooser = random.Random(options.seed)
        separate, tries = [], 0
        while len(separate) < ROUNDS:
            assert tries < 2 * ROUNDS, f"Megatron's own code refuses too much: {len(separate)} of {tries} compared"
            kept_apart = megatron.compare(chooser, dump, work / f"round{tries}", blend=len(separate) % 4 == 3)
            tries += 1
            if kept_apart is not None:
                separate.append(kept_apart)
        assert any(separate) and not all(separate), "both kinds of last epoch must occur"
    print(f"{ROUNDS} data sets in the same order, {sum(separate)} of them with a last epoch kept apart")
    return 0


def find_source():
    named = os.environ.get("MDS_MEGATRON_SOURCE")
    places = [pathlib.Path(named)] if named else sorted(ROOT.parent.glob("shared/megatron-deepspeed/*.tar.xz"))
    if named and not places[0].exists():
        sys.exit(f"MDS_MEGATRON_SOURCE={named}: no such file or folder")
    return places[0] if places else None


def unpack(source, work):
    if source.is_dir():
        return source
    folder = work / "source"
    folder.mkdir()
    subprocess.run(["tar", "-xf", str(source), "-C", str(folder), "--strip-components=1"], check=True)
    return folder


class Megatron:
    """Its data set modules, loaded from their files under their own names."""

    def __init__(self, source, work):
        import numpy
        import torch
        self.numpy = numpy
        self.last_epoch_kept_apart = False
        arguments = types.SimpleNamespace(train_data_exact_num_epochs=None, train_desc_path=None,
                                          train_doc_idx_path=None, train_sample_idx_path=None,
                                          train_shuffle_idx_path=None, use_dataset_only=False, return_data_index=False)

        def module(name, **contents):
            sys.modules[name] = types.ModuleType(name)
            vars(sys.modules[name]).update(contents)

        nothing = lambda *values, **options: None
        module("deepspeed")
        module("deepspeed.accelerator", get_accelerator=lambda: types.SimpleNamespace(LongTensor=torch.LongTensor))
        # One rank: its sums over groups leave a value as it is, and every group has one member.
        torch.distributed.all_reduce = nothing
        torch.distributed.get_world_size = lambda group=None: 1
        torch.distributed.get_rank = lambda group=None: 0
        groups = types.SimpleNamespace(get_data_parallel_group=nothing, get_pipeline_model_parallel_group=nothing,
                                       get_tensor_model_parallel_group=nothing, get_sequence_parallel_group=nothing)
        module("megatron", print_rank_0=nothing, is_rank_0=lambda: True, get_args=lambda: arguments)
        module("megatron.core", mpu=groups)
        module("megatron.data")
        folder = source / "megatron" / "data"
        sys.modules["megatron.data"].helpers = compile_helpers(folder / "helpers.cpp", work)
        sys.modules["megatron.data.helpers"] = sys.modules["megatron.data"].helpers
        self.indexed = load("megatron.data.indexed_dataset", folder / "indexed_dataset.py")
        load("megatron.data.blendable_dataset", folder / "blendable_dataset.py")
        module("megatron.data.dataset_utils", **only(folder / "dataset_utils.py", "get_train_valid_test_split_",
                                                     "get_datasets_weights_and_num_samples"))
        self.gpt = load("megatron.data.gpt_dataset", folder / "gpt_dataset.py")
        shuffle = self.gpt._build_shuffle_idx

        def watched(samples, total, generator):
            self.last_epoch_kept_apart |= samples != total
            return shuffle(samples, total, generator)

        self.gpt._build_shuffle_idx = watched

    def compare(self, chooser, dump, work, blend):
        """Writes random data with Megatron's builder, reads it with both, and returns whether Megatron kept a last
        epoch apart; None if its own code cannot build or read this blend (shares rounded past a small part's end)."""
        work.mkdir()
        prefixes = [self.write(chooser, work / f"part{i}") for i in range(chooser.randint(2, 4) if blend else 1)]
        weights = [chooser.choice([1, 2, 0.3, 7.5]) for _ in prefixes]
        seq_len, seed = chooser.choice([2, 7, 16, 33]), chooser.choice([0, 1234, 2**32 - 1, chooser.randrange(2**32)])
        shares = chooser.choice(["969,30,1", "60,30,10", "0.5,0.25,0.25"])
        wanted = [chooser.randint(1, 700), chooser.randint(1, 90), chooser.randint(1, 30)]
        self.last_epoch_kept_apart = False
        names = [str(item) for pair in zip(weights, prefixes) for item in pair] if blend else [str(prefixes[0])]
        try:
            sets = self.gpt.build_train_valid_test_datasets(names, "mmap", shares, wanted, seq_len, seed, True)
        except IndexError:
            if not blend:
                raise
            return None
        what = f"{names} seq_len {seq_len} seed {seed} shares {shares} samples {wanted}"
        for split, dataset in zip(("train", "valid", "test"), sets):
            pairs = [str(item) for pair in zip(weights, prefixes) for item in pair]
            run = subprocess.run([dump, split, str(seq_len), str(seed), shares, *map(str, wanted), *pairs],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if dataset is None:  # no document fell to this split
                assert run.returncode == 1 and "data.split" in run.stderr, f"{what} {split}: {run.stderr}"
                continue
            assert run.returncode == 0, f"{what} {split}: {run.stderr}"
            count, *lines = run.stdout.splitlines()
            assert int(count) == len(dataset), f"{what} {split}: {count} samples instead of {len(dataset)}"
            for i, line in enumerate(lines):
                try:
                    expected = dataset[i]["text"].tolist()
                except IndexError:
                    if not blend:
                        raise
                    return None
                assert list(map(int, line.split())) == expected, f"{what} {split}: sample {i} differs"
        return self.last_epoch_kept_apart

    def write(self, chooser, prefix):
        kind = chooser.choice([self.numpy.uint16, self.numpy.int32])
        builder = self.indexed.MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=kind)
        import torch
        lengths = [chooser.choice([0, 1, 2, 5, chooser.randint(1, 60)]) for _ in range(chooser.randint(40, 120))]
        # Megatron never returns from a split without tokens (ours is an error): the small ones at the end have some.
        lengths[-8:] = [max(3, length) for length in lengths[-8:]]
        for length in lengths:
            builder.add_item(torch.tensor([chooser.randrange(65536) for _ in range(length)], dtype=torch.int32))
            builder.end_document()
        builder.finalize(f"{prefix}.idx")
        return prefix


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def only(path, *functions):
    """Single functions of a module that imports more than there is here."""
    import ast
    import math
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in functions]
    contents = {"math": math}
    exec(compile(tree, str(path), "exec"), contents)
    return {name: contents[name] for name in functions}


def compile_helpers(source, work):
    """Megatron's C++ helpers, against the pybind11 that comes with torch."""
    import torch
    library = work / f"helpers{sysconfig.get_config_var('EXT_SUFFIX')}"
    includes = [pathlib.Path(torch.__file__).parent / "include", sysconfig.get_path("include")]
    command = ["g++", "-O1", "-shared", "-std=c++17", "-fPIC", "-w", *[f"-I{folder}" for folder in includes],
               str(source), "-o", str(library)]
    build = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if build.returncode != 0:
        sys.exit(f"cannot compile {source} (are g++ and python3-dev there?):\n{build.stdout}")
    return load("helpers", library)


if __name__ == "__main__":
    sys.exit(main())
