"""Bad input ends with exit code 2 (wrong) or 3 (cannot be placed) and one clear message: broken job files, data files
and checkpoints, made by hand and by chance. Never a crash, never a hang, never a restart of what cannot get better.
"""
import pathlib
import random
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

CRASH_WORDS = ("terminate called", "Segmentation fault", "AddressSanitizer", "runtime error:", "Traceback", "SIGABRT",
               "SIGSEGV", "core dumped", "std::", "c10::Error")

# What is changed in a good job file, the exit code, and words that the message must have.
JOB_FILES = {
    "not TOML": (lambda text: text + "\n[training\n", 2, ["job.toml:31", "TOML"]),
    "empty": (lambda text: "", 2, ["job"]),
    "binary": (lambda text: "\0\1\2\xff", 2, ["job.toml:1"]),
    "unknown section": (lambda text: text + "\n[trainig]\nsteps = 3\n", 2, ["trainig", "training"]),
    "unknown key": (lambda text: text.replace("hidden_size", "hiden_size"), 2, ["hiden_size", "hidden_size"]),
    "wrong type": (lambda text: text.replace("steps = 4", 'steps = "many"'), 2, ["steps"]),
    "negative": (lambda text: text.replace("steps = 4", "steps = -4"), 2, ["steps"]),
    "huge": (lambda text: text.replace("hidden_size = 64", "hidden_size = 9223372036854775807"), 2, ["hidden_size"]),
    "not a number": (lambda text: text.replace("lr = 1e-3", "lr = nan"), 2, ["lr"]),
    "twice": (lambda text: text.replace("steps = 4", "steps = 4\nsteps = 5"), 2, ["steps"]),
    "unknown architecture": (lambda text: text.replace('"llama"', '"lama"'), 2, ["lama", "llama"]),
    "heads": (lambda text: text.replace("num_attention_heads = 4", "num_attention_heads = 5"), 2,
              ["num_attention_heads"]),
    "tensor does not divide": (lambda text: text.replace("tensor = 1", "tensor = 3"), 2, ["parallel"]),
    "batch": (lambda text: text.replace("global_batch_size = 8", "global_batch_size = 7\n")
              .replace("micro_batch_size = 1", "micro_batch_size = 2"), 2, ["global_batch_size"]),
    "no data there": (lambda text: text.replace("/usr/share/common-licenses", "/no/such/data"), 2, ["/no/such/data"]),
    "sequence too long": (lambda text: text.replace('"llama"', '"gpt3"').replace("seq_len = 32", "seq_len = 64"), 2,
                          ["seq_len"]),
    "no GPU": (lambda text: text.replace('devices = "cpu"', "gpus_per_node = 64")
               .replace("ranks_per_node = 1\n", "").replace("tensor = 1", "tensor = 1\ndata = 64")
               .replace("global_batch_size = 8", "global_batch_size = 64"), 3, ["GPU"]),
}


def verdict(run, name, codes, words=()):
    told = run.output + run.errors
    harness.check(run.exit_code in codes, f"{name}: expected exit code {codes}, got {run.everything()}")
    harness.check(not any(word in told for word in CRASH_WORDS), f"{name}: a crash's words: {run.everything()}")
    if run.exit_code != 0:
        harness.check(told.strip(), f"{name}: no message")
        for word in words:
            harness.check(word in told, f"{name}: the message does not name {word!r}: {run.everything()}")


def job_files(launcher):
    for name, (change, code, words) in JOB_FILES.items():
        text = change(harness.small_job())
        harness.check(text != harness.small_job(), f"{name}: the change changes nothing")
        verdict(launcher.run(launcher.job(text), timeout=30), name, [code], words)
        print(f"job file, {name}: exit code {code}")
    run = launcher.run(launcher.job(harness.small_job().replace("hidden_size", "hiden_size").replace("lr =", "l_r =")))
    harness.check("hiden_size" in run.errors and "l_r" in run.errors, f"not every problem at once: {run.everything()}")
    verdict(launcher.run(launcher.job(harness.small_job()), "--set", "training.stepz=1"), "--set", [2], ["stepz"])
    verdict(launcher.run(launcher.job(harness.small_job()), "--kill-rank", "0@99"), "--kill-rank", [2], ["step 4"])
    verdict(launcher.run(launcher.job(harness.small_job()), "--set", "data.split=[1, 0, 0]"), "no validation", [0])
    verdict(launcher.run(launcher.work / "nothing.toml"), "no job file", [2], ["nothing.toml"])
    verdict(launcher.run("--no-such-option", launcher.job("")), "option", [2], ["no-such-option"])


def mutate(rng, data):
    """One to four small accidents: a byte changed, a piece lost, doubled or moved, the end cut off."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) or 1), rng.randint(1, 12)
        piece = data[at:at + length]
        kind = rng.choice(["byte", "byte", "lose", "double", "move", "cut", "insert"])
        if kind == "byte" and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "lose":
            del data[at:at + length]
        elif kind == "double":
            data[at:at] = piece
        elif kind == "move":
            del data[at:at + length]
            to = rng.randrange(len(data) or 1)
            data[to:to] = piece
        elif kind == "cut":
            del data[max(at, len(data) - 200):]
        else:
            data[at:at] = rng.choice([b"-1", b"999999999999999999999", b"[[", b"\xff\xfe", b"nan", b"'''", b"{}", b"="])
    return bytes(data)


def fuzz_job_files(launcher, rng, seconds):
    """Plan only: a mutated file that is still right must not start training."""
    seeds = [harness.small_job().encode(), harness.QUICKSTART.read_bytes()]
    path, codes, end = launcher.work / "fuzzed.toml", {}, time.monotonic() + seconds
    while time.monotonic() < end:
        text = mutate(rng, rng.choice(seeds))
        path.write_bytes(text)
        run = launcher.command("plan", "--json", path, timeout=20)
        verdict(run, f"fuzzed job file {text!r}", [0, 2, 3])
        codes[run.exit_code] = codes.get(run.exit_code, 0) + 1
    print(f"fuzzed job files, exit codes: {codes}")
    harness.check(codes.get(2, 0) >= 5, "hardly any fuzzed file was refused: does the fuzzer do anything?")


def megatron_files(folder, documents=40, length=200):
    """Megatron's indexed data set (version 1): .bin holds uint16 tokens, .idx the sizes, pointers and documents."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(1)
    (folder / "d.bin").write_bytes(bytes(b for _ in range(documents * length) for b in (rng.randrange(256), 0)))
    sizes = struct.pack(f"<{documents}i", *[length] * documents)
    pointers = struct.pack(f"<{documents}q", *[2 * length * n for n in range(documents)])
    ends = struct.pack(f"<{documents + 1}q", *range(documents + 1))
    (folder / "d.idx").write_bytes(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, documents, documents + 1)
                                   + sizes + pointers + ends)
    return folder / "d"


def change_file(path, change):
    path.write_bytes(change(path.read_bytes()))


DATA_FILES = {
    "bad magic": ("d.idx", lambda data: b"X" + data[1:]),
    "version 9": ("d.idx", lambda data: data[:9] + struct.pack("<Q", 9) + data[17:]),
    "unknown token type": ("d.idx", lambda data: data[:17] + b"\x63" + data[18:]),
    "count too large": ("d.idx", lambda data: data[:18] + struct.pack("<Q", 1 << 60) + data[26:]),
    "index cut off": ("d.idx", lambda data: data[:len(data) // 2]),
    "index empty": ("d.idx", lambda data: b""),
    "tokens cut off": ("d.bin", lambda data: data[:len(data) // 2]),
    "pointer outside": ("d.idx", lambda data: data[:34 + 160] + struct.pack("<q", 1 << 50) + data[34 + 168:]),
    "negative size": ("d.idx", lambda data: data[:34] + struct.pack("<i", -5) + data[38:]),
    "token beyond the vocabulary": ("d.bin", lambda data: b"\xff\xff" * (len(data) // 2)),
}


def megatron_job(prefix):
    return harness.small_job(text=prefix, steps=2).replace('format = "text"', 'format = "megatron"')


def data_files(launcher, rng):
    good = megatron_files(launcher.work / "good")
    verdict(launcher.run(launcher.job(megatron_job(good))), "good data", [0])
    for name, (file, change) in DATA_FILES.items():
        prefix = megatron_files(launcher.work / "bad")
        change_file(prefix.parent / file, change)
        verdict(launcher.run(launcher.job(megatron_job(prefix)), timeout=60), f"data, {name}", [2], ["bad/d"])
        print(f"data, {name}: exit code 2")
    prefix = megatron_files(launcher.work / "bad")
    (launcher.work / "bad/d.idx").unlink()
    verdict(launcher.run(launcher.job(megatron_job(prefix))), "no index", [2], ["d.idx"])
    for name, text in (("empty", ""), ("too short", "a few words")):
        file = launcher.work / "text.txt"
        file.write_text(text)
        verdict(launcher.run(launcher.job(harness.small_job(text=file)), timeout=60), f"text {name}", [2], ["text.txt"])
    for _ in range(6):
        prefix = megatron_files(launcher.work / "bad")
        change_file(launcher.work / "bad/d.idx", lambda data: mutate(rng, data))
        verdict(launcher.run(launcher.job(megatron_job(prefix)), timeout=60), "fuzzed index", [0, 2, 3])


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]


CHECKPOINTS = {
    "manifest lost": ("manifest.json", None),
    "manifest empty": ("manifest.json", lambda data: b""),
    "manifest cut off": ("manifest.json", lambda data: data[:len(data) // 2]),
    "manifest of another kind": ("manifest.json", lambda data: b'{"hello": [1, 2, 3]}'),
    "manifest too deep": ("manifest.json", lambda data: b"[" * 200000),
    "shard lost": ("rank-00000.safetensors", None),
    "shard empty": ("rank-00000.safetensors", lambda data: b""),
    "shard cut off": ("rank-00000.safetensors", lambda data: data[:-7]),
    "a bit flipped": ("rank-00000.safetensors", lambda data: flip(data, len(data) * 2 // 3)),
    "header length": ("rank-00000.safetensors", lambda data: struct.pack("<Q", (1 << 63) - 1) + data[8:]),
}


def checkpoints(launcher, rng):
    good = launcher.run(launcher.job(harness.small_job(steps=2)), "--set", "checkpoint.interval=2").expect(0)
    names = good.checkpoints()
    harness.check(names, f"no checkpoint: {good.everything()}")
    source = good.folder / "checkpoints" / names[-1]

    def attempt(name, file, change, codes, *more):
        copy = launcher.work / "checkpoint-copy"
        copy.mkdir(exist_ok=True)
        for path in source.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        if file and change:
            change_file(copy / file, change)
        elif file:
            (copy / file).unlink()
        job = launcher.job(harness.small_job(steps=4))
        run = launcher.run(job, "--set", f"checkpoint.load={copy}", *more, timeout=60)
        verdict(run, f"checkpoint, {name}", codes, ["checkpoint-copy"] if codes == [2] else [])
        print(f"checkpoint, {name}: exit code {run.exit_code}")

    attempt("good", None, None, [0])
    for name, (file, change) in CHECKPOINTS.items():
        attempt(name, file, change, [2])
    attempt("of another model", None, None, [2], "--set", "model.hidden_size=32")
    attempt("beyond the last step", None, None, [2], "--set", "training.steps=1")
    folder = launcher.run(launcher.job(harness.small_job()), "--set", f"checkpoint.load={good.folder}")
    verdict(folder, "a run folder as checkpoint", [2], [str(source)])
    missing = launcher.run(launcher.job(harness.small_job()), "--set", "checkpoint.load=/no/such/checkpoint")
    verdict(missing, "checkpoint missing", [2], ["/no/such/checkpoint"])
    for _ in range(4):
        attempt("fuzzed shard", "rank-00000.safetensors", lambda data: mutate(rng, data), [2])
        attempt("fuzzed manifest", "manifest.json", lambda data: mutate(rng, data), [0, 2, 3])


def test(launcher, arguments):
    rng = random.Random(harness.fresh_seed())
    fuzz_job_files(launcher, rng, arguments.fuzz_seconds)
    job_files(launcher)
    data_files(launcher, rng)
    checkpoints(launcher, rng)


if __name__ == "__main__":
    harness.main(test, __doc__, lambda parser: parser.add_argument("--fuzz-seconds", type=float, default=15))
