#!/usr/bin/env python3
"""Plans of many machines against what is written down. Every folder in tests/topology/goldens is a test:

job.toml      the job; it runs a [payload], so that the plan holds nothing but the placement
source        a --topology a line: a synthetic machine, or "recorded:" and a path in the recorded topologies; without
              this file every other file of the folder is a --topology, in the order of their names
plan.golden   what is expected; --rewrite (or MDS_REWRITE=1) writes it anew

To add one, put a machine file and a job into a new folder, run with --rewrite, and read what it says.
"""
import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import harness  # noqa: E402

GOLDENS = HERE / "goldens"
SHOWN = ("CUDA_VISIBLE_DEVICES", "NCCL_", "GLOO_", "OMP_NUM_THREADS")


class NotThere(Exception):
    """A recording that this machine does not have."""


def recordings():
    return pathlib.Path(os.environ.get("MDS_TOPOLOGIES", harness.ROOT.parent / "shared/topologies"))


def sources(folder):
    if not (folder / "source").exists():
        return [path for path in sorted(folder.iterdir()) if path.name not in ("job.toml", "plan.golden")]
    lines = [line.strip() for line in (folder / "source").read_text().splitlines() if line.strip()]
    return [recorded(line.removeprefix("recorded:")) if line.startswith("recorded:") else line for line in lines]


def recorded(source):
    """"nccl/file.xml x2" with the folder in front."""
    name = source.split(" ")[0]
    if not (recordings() / name).exists():
        raise NotThere(f"{recordings() / name} is not there; set MDS_TOPOLOGIES")
    return recordings() / source


def ranges(numbers):
    """[0, 1, 2, 5] as "0-2,5"."""
    parts = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts) or "-"


def describe(plan):
    """The plan's placement, a line a rank; variables that all ranks of a node share once."""
    lines = [f"world size {plan['world_size']}"]
    by_node = {}
    for rank in plan["ranks"]:
        by_node.setdefault(rank["node_rank"], []).append(rank)
    for node_rank, ranks in sorted(by_node.items()):
        lines.append(f"node {node_rank}: {ranks[0]['host']}")
        shown = [{k: v for k, v in rank["env"].items() if k.startswith(SHOWN)} for rank in ranks]
        shared = {k: v for k, v in shown[0].items() if all(env.get(k) == v for env in shown)}
        for name, value in sorted(shared.items()):
            lines.append(f"  {name}={value.replace(ranks[0]['env']['MDS_RUN_FOLDER'], 'RUN')}")
        for rank, env in zip(ranks, shown):
            where = f"{rank['device']} {rank['gpu']['bus_id']}".strip() if "gpu" in rank else rank["device"]
            own = "".join(f" {name}={value}" for name, value in sorted(env.items()) if name not in shared)
            lines.append(f"  rank {rank['rank']}: local {rank['local_rank']} tp {rank['tp']} cp {rank['cp']} "
                         f"dp {rank['dp']} pp {rank['pp']} | {where} | cpus {ranges(rank['cores'])}"
                         f"{' shared' if rank['shares_cores'] else ''} | memory {ranges(rank['memory_nodes'])} | "
                         f"nics {' '.join(rank['nics']) or '-'}{own and ' |' + own}")
    return "\n".join(lines + ["because"] + [f"- {reason}" for reason in plan["reasons"]]) + "\n"


def actual(launcher, folder):
    arguments = [argument for source in sources(folder) for argument in ("--topology", source)]
    run = launcher.command("plan", "--json", *arguments, folder / "job.toml")
    if run.exit_code != 0:
        return f"exit code {run.exit_code}\n{run.errors}"
    return describe(json.loads(run.output))


def test(launcher, arguments):
    folders = [path for path in sorted(GOLDENS.iterdir()) if path.is_dir()]
    failed, missing = [], []
    for folder in folders:
        golden = folder / "plan.golden"
        try:
            text = actual(launcher, folder)
        except NotThere as reason:
            missing.append(str(reason))
            continue
        if arguments.rewrite:
            golden.write_text(text)
        elif not golden.exists() or golden.read_text() != text:
            failed.append(folder.name)
            print(f"{folder.name}: another plan than in {golden}; if it is right, run with --rewrite\n{text}")
    print(f"{len(folders)} plans, {len(failed)} failed {failed}, {len(missing)} without a recording {missing}")
    harness.check(not failed, "plans have changed")
    harness.check(not missing or os.environ.get("CI") != "true", "recordings are missing")
    return harness.skip(missing[0]) if missing else 0


def add_arguments(parser):
    parser.add_argument("--rewrite", action="store_true", default=os.environ.get("MDS_REWRITE") == "1",
                        help="write what comes out as what is expected")


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
