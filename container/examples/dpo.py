"""Tunes a language model to preferences (trl's DPO): of two answers to a prompt it learns to find the better one
likelier.

    dpo.py [--model FOLDER] [--pairs FILE.jsonl] [--steps N] [--output FOLDER]

A line of the file is {"prompt": ..., "chosen": ..., "rejected": ...}. One process for each GPU, or on CPUs, as torchrun
or mdslaunch starts them. Rank 0 prints "loss STEP VALUE margin VALUE". Without --model and --pairs a tiny model learns
to answer calmly.
"""
import argparse

import datasets
import tiny
import torch
import transformers
import trl

THINGS = ("the weather", "my code", "this book", "the train", "our plan", "the soup", "a long walk", "the new lamp")


def toy_pairs():
    return datasets.Dataset.from_list([
        {"prompt": f"What about {thing}? ", "chosen": f"{thing} is fine, thank you.", "rejected": f"{thing.upper()}!!!"}
        for thing in THINGS for _ in range(16)])


class PrintLosses(transformers.TrainerCallback):
    def on_log(self, args, state, control, logs=None, **_):
        if state.is_world_process_zero and "loss" in logs:
            print(f"loss {state.global_step} {logs['loss']} margin {logs['rewards/margins']}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--pairs")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8, help="pairs of one rank in a step")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--output", default="tuned")
    options = parser.parse_args()
    model, tokenizer = tiny.load(options.model)
    reference, _ = tiny.load(options.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pairs = datasets.load_dataset("json", data_files=options.pairs, split="train") if options.pairs else toy_pairs()
    on_gpus = torch.cuda.is_available()
    trainer = trl.DPOTrainer(
        model, reference, args=trl.DPOConfig(
            output_dir=options.output, use_cpu=not on_gpus, ddp_backend="nccl" if on_gpus else "gloo",
            bf16=on_gpus, max_steps=options.steps, per_device_train_batch_size=options.batch, logging_steps=1,
            learning_rate=options.learning_rate, max_length=256, max_prompt_length=128, save_strategy="no",
            report_to=[], disable_tqdm=True),
        train_dataset=pairs, processing_class=tokenizer, callbacks=[PrintLosses()])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    trainer.save_model()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
