"""Teaches a language model a text by low-rank adapters (peft): the model's own weights stay as they are.

    lora.py [--model FOLDER] --text FILE... [--steps N] [--output FOLDER]

One process for each GPU, or on CPUs, as torchrun or mdslaunch starts them. Rank 0 prints "loss STEP VALUE" and saves
the adapters, some megabytes, in the output folder. Without --model a tiny one is made on the spot.
"""
import argparse
import pathlib

import peft
import tiny
import torch
import transformers


class Text(torch.utils.data.Dataset):
    """The files one after the other, cut into samples of equal length."""

    def __init__(self, files, tokenizer, length):
        tokens = [token for file in files for token in tokenizer(pathlib.Path(file).read_text(errors="replace"))
                  .input_ids]
        count = len(tokens) // length
        self.samples = torch.tensor(tokens[:count * length]).view(count, length)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return {"input_ids": self.samples[index], "labels": self.samples[index]}


class PrintLosses(transformers.TrainerCallback):
    def on_log(self, args, state, control, logs=None, **_):
        if state.is_world_process_zero and "loss" in logs:
            print(f"loss {state.global_step} {logs['loss']}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="samples of one rank in a step")
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapters")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--output", default="adapters")
    options = parser.parse_args()
    model, tokenizer = tiny.load(options.model)
    transformers.set_seed(2)
    model = peft.get_peft_model(model, peft.LoraConfig(r=options.rank, lora_alpha=2 * options.rank,
                                                       target_modules="all-linear", task_type="CAUSAL_LM"))
    on_gpus = torch.cuda.is_available()
    trainer = transformers.Trainer(
        model, transformers.TrainingArguments(
            output_dir=options.output, use_cpu=not on_gpus, ddp_backend="nccl" if on_gpus else "gloo",
            bf16=on_gpus, max_steps=options.steps, per_device_train_batch_size=options.batch, logging_steps=1,
            learning_rate=options.learning_rate, save_strategy="no", report_to=[], disable_tqdm=True),
        train_dataset=Text(options.text, tokenizer, options.length), callbacks=[PrintLosses()])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    trainer.save_model()           # rank 0 alone writes
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
