// mdslaunch top [RUN]
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "agent/unique_fd.hpp"
#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/control.hpp"
#include "launcher/run.hpp"
#include "launcher/run_status.hpp"
#include "launcher/top_frame.hpp"

namespace mds::launcher {
namespace {

using nlohmann::json;

constexpr int kIntervalMs = 1000;

/// The terminal's other screen, keys as they are typed; all is put back however this ends but by SIGKILL.
class Screen {
 public:
  Screen() {
    sigset_t caught;
    sigemptyset(&caught);
    for (const int signal : {SIGTERM, SIGHUP, SIGINT, SIGWINCH}) sigaddset(&caught, signal);
    sigprocmask(SIG_BLOCK, &caught, nullptr);
    signals_ = agent::UniqueFd(signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK));
    tcgetattr(STDIN_FILENO, &before_);
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    put("\033[?1049h\033[?25l");
  }
  Screen(const Screen&) = delete;
  ~Screen() {
    put("\033[?25h\033[?1049l");
    tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }

  /// Line by line over what is there, in one write: nothing is ever blank in between.
  void draw(const json& status) const {
    winsize size{};
    ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    const int columns = size.ws_col > 0 ? size.ws_col : 80, rows = size.ws_row > 0 ? size.ws_row : 24;
    std::string text = "\033[?2026h\033[H";
    const std::vector<std::string> lines = top_frame(status, columns - 1, rows - 1);
    for (const std::string& line : lines) text += line + "\033[K\r\n";
    put(text + "\033[J\033[?2026l");
  }

  /// False when the user wants to leave. Returns early when the terminal has another size.
  bool wait() const {
    std::array<pollfd, 2> polled{{{STDIN_FILENO, POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
    if (poll(polled.data(), polled.size(), kIntervalMs) <= 0) return true;
    if (polled[1].revents != 0) {
      signalfd_siginfo info{};
      while (read(signals_.get(), &info, sizeof info) == sizeof info) {
        if (info.ssi_signo != SIGWINCH) return false;
      }
    }
    if (polled[0].revents == 0) return true;
    char key = 'q';  // the end of the input is one, too
    return read(STDIN_FILENO, &key, 1) == 1 && key != 'q' && key != 'Q' && key != 3 && key != 27;
  }

 private:
  static void put(std::string_view text) {
    [[maybe_unused]] const ssize_t n = write(STDOUT_FILENO, text.data(), text.size());
  }
  agent::UniqueFd signals_;
  termios before_{};
};

/// Until the user or the run ends it.
Result<json> watch(const RunFolder& folder, ControlClient& client) {
  Screen screen;
  while (true) {
    auto status = live_status(folder, client);
    if (!status) return status;
    screen.draw(*status);
    if (!screen.wait()) return status;
  }
}

}  // namespace

int top_command(const Arguments& arguments) {
  const std::string run = arguments.positional.empty() ? "" : arguments.positional[0];
  const auto folder = RunFolder::find(run, output_dir_of(arguments));
  if (!folder) return report_error(folder.error());
  const char* kind = std::getenv("TERM");
  const bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && kind && std::string_view(kind) != "dumb";
  if (terminal) {
    auto client = ControlClient::connect(*folder);
    if (client && watch(*folder, **client)) return kExitFinished;
  }
  // No terminal, or the run has ended: its status once, which stays to be read.
  return status_command(arguments);
}

}  // namespace mds::launcher
