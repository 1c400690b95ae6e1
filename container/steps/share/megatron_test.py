"""Makes what Megatron-DeepSpeed needs to train two steps on CPUs: a byte-level vocabulary without merges, a data set of
the licence texts that every Debian has, DeepSpeed's configuration.

    megatron_test.py FOLDER         prints the arguments for pretrain_gpt.py, one a line
"""
import json
import pathlib
import subprocess
import sys

ARGUMENTS = """--tensor-model-parallel-size 2 --pipeline-model-parallel-size 1 --no-pipeline-parallel --num-layers 2
  --hidden-size 64 --num-attention-heads 4 --seq-length 64 --max-position-embeddings 64 --micro-batch-size 2
  --global-batch-size 4 --train-iters 2 --lr 1e-3 --min-lr 1e-4 --lr-decay-style cosine --data-path data_text_document
  --vocab-file vocab.json --merge-file merges.txt --split 90,5,5 --distributed-backend gloo --log-interval 1
  --eval-iters 1 --eval-interval 100 --no-masked-softmax-fusion --no-gradient-accumulation-fusion
  --no-bias-gelu-fusion --no-bias-dropout-fusion --deepspeed --deepspeed_config ds.json --zero-stage 1 --data-impl mmap
  --tokenizer-type GPT2BPETokenizer --no-async-tensor-model-parallel-allreduce"""


def main(folder):
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = [*map(chr, printable), *(chr(256 + index) for index in range(len(others))), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    text = pathlib.Path("/usr/share/common-licenses/GPL-2").read_text()
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": part}) + "\n" for part in text.split("\n\n")))
    (folder / "ds.json").write_text(json.dumps({
        "train_batch_size": 4, "train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": 1},
        "optimizer": {"type": "Adam", "params": {"lr": 0.001, "torch_adam": True}}}))
    subprocess.run(["megatron", "tools/preprocess_data.py", "--input", "text.jsonl", "--output-prefix", "data",
                    "--vocab-file", "vocab.json", "--merge-file", "merges.txt", "--tokenizer-type",
                    "GPT2BPETokenizer", "--append-eod", "--dataset-impl", "mmap", "--workers", "1"],
                   cwd=folder, check=True, stdout=subprocess.DEVNULL)
    print("\n".join(ARGUMENTS.split()))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
