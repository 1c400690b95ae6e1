"""Compares our models with Hugging Face transformers: logits, loss and every gradient, under every layout.

usage: oracle.py --build FOLDER [--keep FOLDER] [--seed N]

Tiny random gpt2, llama and bloom models are made by transformers and saved with save_pretrained; oracle_dump loads the
folders, runs them split over threads and saves them again. All in fp32; the error of a tensor is the 2-norm of
ours - theirs over that of theirs.
"""

import argparse
import os
import secrets
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["OMP_NUM_THREADS"] = "1"

try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

TOLERANCE = 1e-5
SAMPLES, SEQ = 4, 20
LAYOUTS = [f"{tp}x{pp}x{dp}{sp}" for tp in (1, 2, 4) for pp in (1, 2) for dp in (1, 2)
           for sp in (("", "s") if tp > 1 else ("",))]
SOME = ["1x1x1", "1x2x2"]


def models():
    """name, model, layouts. Head counts that are no power of two and odd ones, grouped queries, tied and untied."""
    gpt2 = dict(n_layer=2, n_positions=32, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0)
    yield "gpt2", transformers.GPT2Config(n_embd=48, n_head=4, vocab_size=67, **gpt2), LAYOUTS
    yield "gpt2-odd", transformers.GPT2Config(n_embd=21, n_head=3, n_inner=50, vocab_size=53, **gpt2), SOME
    llama = dict(num_hidden_layers=2, max_position_embeddings=64)
    yield "llama", transformers.LlamaConfig(hidden_size=48, num_attention_heads=8, num_key_value_heads=4, head_dim=6,
                                            intermediate_size=76, vocab_size=71, **llama), LAYOUTS
    yield "llama-odd", transformers.LlamaConfig(hidden_size=40, num_attention_heads=5, num_key_value_heads=1,
                                                intermediate_size=33, vocab_size=51, tie_word_embeddings=True,
                                                rope_theta=5e5, rms_norm_eps=1e-5, **llama), SOME
    bloom = dict(n_layer=2, hidden_dropout=0, attention_dropout=0)
    yield "bloom", transformers.BloomConfig(hidden_size=48, n_head=12, vocab_size=61, **bloom), LAYOUTS
    yield "bloom-odd", transformers.BloomConfig(hidden_size=35, n_head=5, vocab_size=43, **bloom), SOME


def make_model(config):
    """A model with every weight random, biases and norms, too."""
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            norm = weight.dim() == 1 and name.endswith("weight")
            weight.normal_(1.0 if norm else 0.0, 0.1)
    return model


def expected(model, tokens, labels):
    logits = model(input_ids=tokens).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    loss.backward()
    result = {"logits": logits.detach(), "loss": loss.detach().reshape(1)}
    result.update({"gradient/" + name: weight.grad for name, weight in model.named_parameters()})
    return result


def compare(ours, theirs):
    """The worst (error, tensor) of a run. Raises if a tensor is missing on either side."""
    assert ours.keys() == theirs.keys(), f"tensors differ: {sorted(ours.keys() ^ theirs.keys())}"
    worst = (0.0, "")
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, f"{name}: {tuple(ours[name].shape)} against {tuple(value.shape)}"
        difference = (ours[name].double() - value.double()).norm() / value.double().norm()
        error = float("inf") if not torch.isfinite(difference) else difference.item()
        worst = max(worst, (error, name))
    return worst


def check_model(dump, folder, name, config, layouts):
    """Number of comparisons that failed."""
    model = make_model(config)
    path = os.path.join(folder, name)
    model.save_pretrained(path)
    tokens = torch.randint(0, config.vocab_size, (SAMPLES, SEQ + 1))
    labels = tokens[:, 1:].clone()
    labels[0, 3] = -100
    tokens = tokens[:, :-1].contiguous()
    batch = os.path.join(path, "batch.safetensors")
    save_file({"tokens": tokens, "labels": labels}, batch)
    subprocess.run([dump, path, batch, path, *layouts], check=True)

    theirs = expected(model, tokens, labels)
    failed = 0
    for layout in layouts:
        error, tensor = compare(load_file(os.path.join(path, layout + ".safetensors")), theirs)
        good = error < TOLERANCE
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {name:10} {layout:7} worst relative error {error:.2e} ({tensor})")
    saved = transformers.AutoModelForCausalLM.from_pretrained(os.path.join(path, "saved")).state_dict()
    equal = all(torch.equal(weight, saved[key]) for key, weight in model.state_dict().items())
    print(f"{'ok  ' if equal else 'FAIL'} {name:10} saved   read back by transformers")
    return failed + (not equal)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--build", required=True, help="build folder, which holds bin/oracle_dump")
    arguments.add_argument("--keep", help="work here and leave the files")
    arguments.add_argument("--seed", type=int, default=secrets.randbits(31))
    options = arguments.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, seed {options.seed}")
    dump = os.path.join(options.build, "bin", "oracle_dump")
    with tempfile.TemporaryDirectory() as temporary:
        failed = sum(check_model(dump, options.keep or temporary, *case) for case in models())
    print(f"{failed} comparisons failed" if failed else "all layouts equal transformers")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
