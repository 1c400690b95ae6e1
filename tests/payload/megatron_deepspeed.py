"""Microsoft's Megatron-DeepSpeed, unpacked, patched for CPUs and given a small data set, ready for a launcher.

The source (commit f4157be) is not part of this project: an archive or folder named by MDS_MEGATRON_SOURCE, or
../shared/megatron-deepspeed beside the checkout.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import harness

LOSS_LINE = r"iteration +(\d+)/.*lm loss: (\S+)"
ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore",
               "TOKENIZERS_PARALLELISM": "false"}
LICENCES = ["Apache-2.0", "GPL-2", "LGPL-2.1"]
ARGUMENTS = """--tensor-model-parallel-size 2 --pipeline-model-parallel-size 1 --no-pipeline-parallel --num-layers 2
  --hidden-size 64 --num-attention-heads 4 --seq-length 128 --max-position-embeddings 128 --micro-batch-size 2
  --global-batch-size 8 --train-iters 10 --lr 1e-3 --min-lr 1e-4 --lr-decay-style cosine --data-path data_text_document
  --vocab-file vocab.json --merge-file merges.txt --split 90,5,5 --distributed-backend gloo --log-interval 1
  --eval-iters 1 --eval-interval 100 --no-masked-softmax-fusion --no-gradient-accumulation-fusion
  --no-bias-gelu-fusion --no-bias-dropout-fusion --attention-dropout 0 --hidden-dropout 0 --deepspeed
  --deepspeed_config ds.json --zero-stage 1 --data-impl mmap --tokenizer-type GPT2BPETokenizer
  --no-async-tensor-model-parallel-allreduce""".split()
# What a user writes around it on CPUs: it takes its device count from LOCAL_SIZE and its device from --local_rank.
RANK_SCRIPT = 'cd "$0" && LOCAL_SIZE=$LOCAL_WORLD_SIZE exec "$@" --local_rank="$LOCAL_RANK"'


def find_source():
    named = os.environ.get("MDS_MEGATRON_SOURCE")
    places = [pathlib.Path(named)] if named else sorted(harness.ROOT.parent.glob("shared/megatron-deepspeed/*.tar.xz"))
    harness.check(not named or places[0].exists(), f"MDS_MEGATRON_SOURCE={named}: no such file or folder")
    return places[0] if places else None


def prepare(source, work):
    """Returns the command of one rank."""
    folder = unpack(source, pathlib.Path(work) / "source")
    patch_for_cpus(folder)
    write_inputs(folder)
    environment = {**os.environ, **ENVIRONMENT, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    quietly = {"cwd": folder, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    for command in (["make", "-C", "megatron/data"],
                    [sys.executable, "tools/preprocess_data.py", "--input", "text.jsonl", "--output-prefix", "data",
                     "--vocab-file", "vocab.json", "--merge-file", "merges.txt", "--tokenizer-type",
                     "GPT2BPETokenizer", "--append-eod", "--dataset-impl", "mmap", "--workers", "1"]):
        step = subprocess.run(command, **quietly)
        harness.check(step.returncode == 0, f"{' '.join(command)}:\n{step.stdout}")
    return ["sh", "-c", RANK_SCRIPT, str(folder), sys.executable, "pretrain_gpt.py", *ARGUMENTS]


def unpack(source, folder):
    if source.is_dir():
        shutil.copytree(source, folder)
        return folder
    folder.mkdir()
    subprocess.run(["tar", "-xf", str(source), "-C", str(folder), "--strip-components=1"], check=True)
    return folder


def patch_for_cpus(folder):
    """On CPUs the attention's inputs are not contiguous where .view() wants them to be."""
    path = folder / "megatron/model/transformer.py"
    text = path.read_text()
    begin, end = text.index("class CoreAttention"), text.index("class FlashSelfAttention")
    path.write_text(text[:begin] + text[begin:end].replace(".view(", ".reshape(") + text[end:])


def write_inputs(folder):
    """Byte-level vocabulary without merges, real text, and DeepSpeed's configuration."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = [*map(chr, printable), *(chr(256 + index) for index in range(len(others))), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with open(folder / "text.jsonl", "w") as file:
        for licence in LICENCES:
            for paragraph in pathlib.Path("/usr/share/common-licenses", licence).read_text().split("\n\n"):
                print(json.dumps({"text": paragraph}), file=file)
    (folder / "ds.json").write_text(json.dumps({
        "train_batch_size": 8, "train_micro_batch_size_per_gpu": 2, "steps_per_print": 1, "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 1},
        "optimizer": {"type": "Adam", "params": {"lr": 0.001, "torch_adam": True, "betas": [0.9, 0.95]}}}))
