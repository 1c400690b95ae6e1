"""Lets a language model go on from prompts; the ranks share the prompts.

    generate.py [--model FOLDER] [--adapters FOLDER] [--tokens N] PROMPT...

Each rank prints "PROMPT -> TEXT" for its own. --adapters takes what lora.py saved.
"""
import argparse
import os

import peft
import tiny
import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--adapters")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("prompt", nargs="+")
    options = parser.parse_args()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    model, tokenizer = tiny.load(options.model)
    if options.adapters:
        model = peft.PeftModel.from_pretrained(model, options.adapters)
    model = model.to(device).eval()
    for prompt in options.prompt[rank::world]:
        tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(device)
        with torch.no_grad():
            output = model.generate(**tokens, max_new_tokens=options.tokens, do_sample=False)
        text = tokenizer.decode(output[0, tokens.input_ids.shape[1]:], skip_special_tokens=True)
        print(f"{prompt!r} -> {text!r}", flush=True)


if __name__ == "__main__":
    main()
