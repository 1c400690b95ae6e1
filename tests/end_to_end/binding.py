"""Ranks are bound to the cores and memory nodes of the plan before their first instruction: a shell, the first thing
that the agent executes, reads its own limits from the kernel, and they equal `mdslaunch plan --json`.
"""
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

READ = """grep -E '^(Cpus|Mems)_allowed_list' /proc/self/status
while read -r line; do echo "maps $line"; done < /proc/self/numa_maps"""
JOB = f"""
[job]
name = "binding"
devices = "cpu"
nodes = 2
ranks_per_node = 2
[payload]
command = ["sh", "-c", {json.dumps(READ)}]
"""


def numbers(text):
    """"0-2,5" -> [0, 1, 2, 5]"""
    found = []
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found


def test(launcher, arguments):
    job = launcher.job(JOB)
    plan = json.loads(launcher.command("plan", "--json", job).expect(0).output)
    run = launcher.run(job).expect(0)
    harness.check(plan["world_size"] == 4 and len(plan["ranks"]) == 4, f"plan --json has {plan['world_size']} ranks")
    for rank in plan["ranks"]:
        log = run.log(rank["rank"])
        cpus = numbers(re.search(r"Cpus_allowed_list:\s*(\S*)", log).group(1))
        harness.check(cpus == sorted(rank["cores"]), f"rank {rank['rank']} may run on {cpus}, planned {rank['cores']}")
        # mbind's policy shows in numa_maps ("bind:0"); where the kernel has no NUMA there is no such file.
        policies = set(re.findall(r"maps \S+ (bind\S*|default|prefer\S*|interleave\S*)", log))
        if rank["memory_nodes"] and policies:
            nodes = set(sum((numbers(p.partition(":")[2]) for p in policies if p.startswith("bind")), []))
            harness.check(nodes == set(rank["memory_nodes"]),
                          f"rank {rank['rank']} has memory policies {policies}, planned {rank['memory_nodes']}")
        print(f"rank {rank['rank']}: cpus {cpus}, memory {sorted(policies) or 'no NUMA here'}")


if __name__ == "__main__":
    harness.main(test, __doc__)
