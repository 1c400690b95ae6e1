"""A terminal of some size, as a user sees it: a tmux server of its own, without anybody's configuration."""
import os
import subprocess
import tempfile

import harness


class Terminal:
    """Runs one command in a terminal; leaving ends it. `environment`: what the command sees."""

    def __init__(self, words, columns=80, rows=24, environment=None, folder=None):
        self.folder = tempfile.TemporaryDirectory(prefix="mds-tmux-")
        self.socket = os.path.join(self.folder.name, "tmux")
        # The shell stays when the command has ended, so that the last screen can be read.
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows, "-c", folder or "/",
                  "env", "TERM=screen-256color", "sh", "-c", 'trap : INT; "$@"; echo "exit code $?"; exec sleep 1000',
                  "sh", *words, environment=environment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False, capture_output=True)
        self.folder.cleanup()

    def tmux(self, *words, environment=None):
        done = subprocess.run(["tmux", "-S", self.socket, *map(str, words)], text=True, capture_output=True,
                              env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})})
        harness.check(done.returncode == 0, f"tmux {words[0]}: {done.stderr}")
        return done.stdout

    def screen(self):
        """The rows that are not empty."""
        return [row for row in self.tmux("capture-pane", "-p").splitlines() if row.strip()]

    def text(self):
        return "\n".join(self.screen())

    def everything(self):
        """What has scrolled away, too."""
        return self.tmux("capture-pane", "-p", "-S", "-").rstrip()

    def device(self):
        return self.tmux("display-message", "-p", "#{pane_tty}").strip()

    def resize(self, columns, rows):
        self.tmux("resize-window", "-x", columns, "-y", rows)

    def type(self, text, enter=True):
        self.tmux("send-keys", "-l", text)
        if enter:
            self.tmux("send-keys", "Enter")

    def press(self, key):
        self.tmux("send-keys", key)

    def wait_for(self, text, seconds=60):
        """The first screen that has `text`."""
        return self.wait_until(lambda screen: text in "\n".join(screen), f"{text!r} on the screen", seconds)

    def wait_until(self, condition, what, seconds=60):
        """The first screen that is as wanted."""
        try:
            return harness.wait_for(lambda: (screen := self.screen()) and condition(screen) and screen, seconds, what)
        except harness.Failure as failure:
            raise harness.Failure(f"{failure}; there is\n{self.everything()}") from None
