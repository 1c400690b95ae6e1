"""A model and a tokenizer made on the spot: random weights, one token for each byte, no file and no network. What the
examples train when no --model is named, to show in seconds that everything works."""
import transformers


def tokenizer():
    made = transformers.ByT5Tokenizer()
    made.bos_token = made.eos_token
    return made


def model(vocabulary):
    transformers.set_seed(1)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=vocabulary, max_position_embeddings=512, bos_token_id=1, eos_token_id=1, pad_token_id=0))


def load(folder):
    """(model, tokenizer) of a Hugging Face folder or name; tiny ones without."""
    if folder:
        return (transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype="auto"),
                transformers.AutoTokenizer.from_pretrained(folder))
    words = tokenizer()
    return model(len(words)), words
