"""Hugging Face's Trainer on a tiny random LLaMA, as started by torchrun on CPUs. No network. Knows nothing of us.

Rank 0 prints one line a step: "loss STEP HEX".
"""
import tempfile

import torch
import transformers

STEPS, SAMPLES, LENGTH, VOCABULARY = 6, 64, 32, 256


class RandomText(torch.utils.data.Dataset):
    def __init__(self):
        self.tokens = torch.randint(VOCABULARY, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(5))

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


class PrintLosses(transformers.TrainerCallback):
    def on_log(self, args, state, control, logs=None, **_):
        if state.is_world_process_zero and "loss" in logs:
            print(f"loss {state.global_step} {float(logs['loss']).hex()}", flush=True)


def main():
    transformers.set_seed(3)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, max_position_embeddings=LENGTH))
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, use_cpu=True, ddp_backend="gloo", max_steps=STEPS, per_device_train_batch_size=4,
            learning_rate=1e-2, logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True)
        trainer = transformers.Trainer(model, arguments, train_dataset=RandomText(), callbacks=[PrintLosses()])
        assert arguments.world_size == 2, f"expected 2 ranks, the Trainer sees {arguments.world_size}"
        trainer.train()


if __name__ == "__main__":
    main()
