"""What a stranger on the wire or on the machine can learn of a run, and do to it: nothing.

Runs in a network namespace of its own, so that every packet and every listener in it belongs to the run; the packets on
its loopback are all captured. The key is known to the test because an agent's start is written down on its way.
"""
import base64
import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

INSIDE = "MDS_TRUST_TEST_INSIDE"
NODES = 34  # two more than the head takes: two agents below others
WORD = "word-that-only-ranks-say"
OTHER_ADDRESS = "10.99.0.1"
HANDSHAKE, TLS_1_3, SUPPORTED_VERSIONS, PRE_SHARED_KEY = 0x16, 0x0304, 43, 41
LATER_RECORDS = {20, 23}  # change_cipher_spec, which means nothing any more, and protected records


class Capture:
    """All that passes over loopback, as TCP streams: {(source, destination): bytes}."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind(("lo", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self.socket.settimeout(0.1)
        self.segments, self.bytes, self.done = {}, bytearray(), False
        self.thread = threading.Thread(target=self.record)
        self.thread.start()

    def record(self):
        while not self.done:
            with contextlib.suppress(TimeoutError):
                packet = self.socket.recv(1 << 17)
                self.bytes += packet
                ip = packet[14:]
                if packet[12:14] != b"\x08\x00" or ip[9] != socket.IPPROTO_TCP:
                    continue
                tcp = ip[4 * (ip[0] & 15):struct.unpack("!H", ip[2:4])[0]]
                source_port, destination_port, sequence = struct.unpack("!HHI", tcp[:8])
                payload = tcp[4 * (tcp[12] >> 4):]
                stream = self.segments.setdefault((ip[12:16], source_port, ip[16:20], destination_port), {})
                if payload:
                    stream[sequence] = payload  # loopback shows each packet twice

    def stop(self):
        self.done = True
        self.thread.join()

    def streams(self):
        return {ends: b"".join(segments[at] for at in sorted(segments))
                for ends, segments in self.segments.items() if segments}


def records(stream):
    at = 0
    while at + 5 <= len(stream):
        kind, _, length = struct.unpack("!BHH", stream[at:at + 5])
        yield kind, stream[at + 5:at + 5 + length]
        at += 5 + length


def server_hello_extensions(hello):
    """{number: bytes} of a ServerHello (RFC 8446, 4.1.3)."""
    at = 4 + 2 + 32
    at += 1 + hello[at]          # session id
    at += 2 + 1 + 2              # cipher suite, compression, length of the extensions
    found = {}
    while at + 4 <= len(hello):
        number, length = struct.unpack("!HH", hello[at:at + 4])
        found[number] = hello[at + 4:at + 4 + length]
        at += 4 + length
    return found


def check_capture(capture, secrets):
    for name, secret in secrets.items():
        harness.check(secret not in capture.bytes, f"{name} is on the wire")
    answered = 0
    for ends, stream in capture.streams().items():
        first, *rest = records(stream)
        harness.check(first[0] == HANDSHAKE, f"{ends} does not begin with a TLS handshake: {stream[:40]!r}")
        kinds = {kind for kind, _ in rest}
        harness.check(kinds <= LATER_RECORDS, f"{ends} has records of kinds {kinds}")
        if first[1][0] != 2:
            continue
        answered += 1
        extensions = server_hello_extensions(first[1])
        harness.check(extensions.get(SUPPORTED_VERSIONS) == struct.pack("!H", TLS_1_3), f"{ends} is not TLS 1.3")
        harness.check(PRE_SHARED_KEY in extensions, f"{ends} is not authenticated by the key")
    harness.check(answered >= NODES + 2, f"only {answered} connections were seen")
    print(f"  {answered} connections, {len(capture.bytes)} bytes")


def listeners():
    """[(address, port)] of this namespace; IPv6 ones as their hexadecimal text."""
    found = []
    for name in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == "0A":
                numeric = socket.inet_ntoa(bytes.fromhex(address)[::-1]) if name == "tcp" else address
                found.append((numeric, int(port, 16)))
    return found


def tapped(launcher):
    """A launcher beside an mdsagent that writes down what it is told before it becomes the real one."""
    folder = launcher.work / "tapped/bin"
    folder.mkdir(parents=True)
    real = launcher.program.parent
    shutil.copy2(real / "mdslaunch", folder)
    script = folder / "mdsagent"
    script.write_text(f"""#!/bin/sh
IFS= read -r line
printf '%s\\n' "$line" >> {launcher.work}/bootstrap
exec {real}/mdsagent <<END
$line
END
""")
    script.chmod(0o755)
    launcher.program = folder / "mdslaunch"
    return launcher


def job(launcher, script, nodes, restarts=0):
    return launcher.job(f"""
[job]
name = "trust"
devices = "cpu"
nodes = {nodes}
ranks_per_node = 1
[payload]
command = ["sh", "-c", {json.dumps(script)}]
[restart]
max_restarts = {restarts}
""")


def running(launcher, nodes, restarts=0, **options):
    """A job whose ranks have all spoken and wait for the file `go`."""
    for old in launcher.work.glob("up-*"):
        old.unlink()
    (launcher.work / "go").unlink(missing_ok=True)
    script = f"echo {WORD}; touch {launcher.work}/up-$RANK; while [ ! -e {launcher.work}/go ]; do sleep 0.1; done"
    process = launcher.start(job(launcher, script, nodes, restarts), **options)
    harness.wait_for(lambda: len(list(launcher.work.glob("up-*"))) == nodes, 60, "all ranks")
    return process


def finish(launcher, process, *codes):
    (launcher.work / "go").touch()
    run = launcher.finish(process, timeout=60).expect(*codes)
    harness.check(not launcher.survivors(), f"left: {launcher.survivors()}")
    return run


def agents(launcher):
    return [pid for pid, command in launcher.survivors() if "mdsagent" in command.split()[0]]


def core_limit(pid):
    for line in pathlib.Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max core file size"):
            return line.split()[4]
    return None


def nothing_is_told(launcher):
    """Not on the wire, in argument lists, environments or files; and nothing listens but on loopback."""
    capture = Capture()
    try:
        process = running(launcher, NODES)
        bootstraps = [json.loads(line) for line in (launcher.work / "bootstrap").read_text().splitlines()]
        keys = {bootstrap["key"] for bootstrap in bootstraps}
        harness.check(len(bootstraps) == NODES and len(keys) == 1, f"{len(bootstraps)} agents, {len(keys)} keys")
        key = keys.pop()
        secrets = {"the key": bytes.fromhex(key), "the key in hexadecimal": key.encode(),
                   "the key in base64": base64.b64encode(bytes.fromhex(key)).rstrip(b"=")}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                seen = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
                for name, secret in secrets.items():
                    harness.check(secret not in seen, f"{name} is in arguments or environment of process {folder.name}")
        where = listeners()
        harness.check({address for address, _ in where} == {"127.0.0.1"}, f"listeners: {where}")
        harness.check(len(where) >= 2, f"head and inner agents listen, but only {where} was found")
        for _, port in where:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection((OTHER_ADDRESS, port), timeout=5)
                raise harness.Failure(f"port {port} answers on another interface")
        finish(launcher, process, 0)
    finally:
        capture.stop()
    check_capture(capture, {**secrets, "the ranks' output": WORD.encode()})
    for path in launcher.work.rglob("*"):
        if path.is_file() and path.name != "bootstrap":
            content = path.read_bytes()
            for name, secret in secrets.items():
                harness.check(secret not in content, f"{name} is in {path}")


def no_core_has_the_key(launcher):
    """Head, guard and agent leave no core when they abort; ranks do as their user has asked for."""
    process = running(launcher, 1, preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)))
    family = agents(launcher)
    harness.check(len(family) == 2, f"guard and agent were expected: {launcher.survivors()}")
    ranks = [pid for pid, command in launcher.survivors() if WORD in command]
    harness.check([core_limit(pid) for pid in (process.pid, *family)] == ["1"] * 3, "a limit of one byte was expected")
    harness.check(ranks and core_limit(ranks[0]) == "unlimited", f"limits of ranks: {list(map(core_limit, ranks))}")
    for pid in (*family, process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGABRT)
    process.wait(20)
    launcher.wait_until_gone(10)
    cores = [path for path in launcher.work.rglob("core*") if path.is_file()]
    harness.check(not cores, f"core files: {cores}")


def strangers_do_nothing(launcher):
    """Scanners, silent ones and TLS clients without the key get nothing, and keep no agent out."""
    process = running(launcher, 2, restarts=1)
    (address, port), = listeners()
    silent = [socket.create_connection((address, port), timeout=10) for _ in range(200)]
    held = len(list(pathlib.Path(f"/proc/{process.pid}/fd").iterdir()))
    harness.check(held < 120, f"{held} descriptors: 200 strangers were let in")
    for kind in ("plain", "tls"):
        stranger = socket.create_connection((address, port), timeout=30)
        with stranger, contextlib.suppress(ConnectionError, ssl.SSLError):
            if kind == "plain":
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                told = stranger.recv(4096)
                harness.check(b"HTTP" not in told and len(told) <= 7, f"a plain client is told {told!r}")
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.wrap_socket(stranger)
                raise harness.Failure("a client without the key was let in")
    for path in launcher.work.glob("up-*"):
        path.unlink()
    more = [socket.create_connection((address, port), timeout=10) for _ in range(200)]
    os.kill(agents(launcher)[0], signal.SIGKILL)
    harness.wait_for(lambda: len(list(launcher.work.glob("up-*"))) == 2, 30, "the next attempt beside 200 strangers")
    run = finish(launcher, process, 0)
    harness.check("restart 1" in run.output, f"no restart was told: {run.everything()}")
    for stranger in silent + more:
        stranger.close()


def test(launcher, arguments):
    for words in ("link set lo up", "link add other type veth peer name far",
                  f"address add {OTHER_ADDRESS}/24 dev other", "link set other up"):
        subprocess.run(["ip", *words.split()], check=True)
    for case in (strangers_do_nothing, no_core_has_the_key):
        print(case.__name__, flush=True)
        case(launcher)
    print(nothing_is_told.__name__, flush=True)
    nothing_is_told(tapped(launcher))


if __name__ == "__main__":
    if INSIDE not in os.environ and "--help" not in sys.argv:
        users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *users, "--net"]
        if subprocess.run([*command, "true"], check=False).returncode != 0 and os.environ.get("CI") != "true":
            sys.exit(harness.skip("no network namespace of its own is to be had"))
        os.execvpe(command[0], [*command, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    harness.main(test, __doc__)
