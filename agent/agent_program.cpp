#include "agent/agent_program.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <openssl/crypto.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/null_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "agent/bootstrap.hpp"
#include "agent/node_agent.hpp"
#include "agent/node_lock.hpp"
#include "container/sha256.hpp"

namespace mds::agent {
namespace {

namespace asio = boost::asio;

constexpr std::chrono::seconds kBootstrapTimeout{60};
constexpr std::chrono::seconds kNodeLockPatience{15};

void complain(const std::string& text) { std::fprintf(stderr, "mdsagent: %s\n", text.c_str()); }

// One line of standard input, without reading ahead more than a pipe gives at once. Errors: bad_input.
Result<std::string> read_line(int fd) {
  std::string line;
  char chunk[4096];
  const auto deadline = std::chrono::steady_clock::now() + kBootstrapTimeout;
  while (line.find('\n') == std::string::npos) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd polled{fd, POLLIN, 0};
    const int ready = poll(&polled, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return bad_input("no bootstrap line on standard input within 60 s");
    const ssize_t n = read(fd, chunk, sizeof chunk);
    if (n <= 0) return bad_input("standard input ended before the bootstrap line did (mdslaunch starts this program)");
    line.append(chunk, static_cast<size_t>(n));
    OPENSSL_cleanse(chunk, sizeof chunk);
    if (line.size() > kBootstrapBytesMax) return bad_input("the bootstrap line is too long");
  }
  return line;
}

Result<Bootstrap> read_bootstrap() {
  auto line = read_line(STDIN_FILENO);
  if (!line) return line.error();
  auto bootstrap = bootstrap_from_line(*line);
  OPENSSL_cleanse(line->data(), line->size());
  if (bootstrap) {
    const Status settled = settle_node(*bootstrap, std::getenv(bootstrap->node_from.c_str()));
    if (!settled) return settled.error();
  }
  return bootstrap;
}

// What was copied here is what was meant: a damaged program may do anything. It is in memory from now on, so its file
// can go, whatever becomes of this process.
Status settle_copy(const std::string& sha256) {
  std::error_code ignored;
  const std::string path = std::filesystem::read_symlink("/proc/self/exe", ignored).string();
  const auto found = container::digest_of_file("/proc/self/exe");
  unlink(path.c_str());
  if (!found) return found.error();
  if (found->sha256 == sha256) return {};
  return corrupt("the copy of mdsagent that reached this node, " + path + ", has the sha256 " + found->sha256 +
                 ", but " + sha256 + " was sent: it was damaged on its way");
}

// Where the run folder cannot be seen, whoever has started us takes the log from our standard error. A log that cannot
// be written is no reason not to run: the head hears of everything that matters.
std::shared_ptr<spdlog::logger> make_logger(const Bootstrap& bootstrap) {
  char name[32];
  std::snprintf(name, sizeof name, "node-%05d", bootstrap.node);
  const std::filesystem::path folder = std::filesystem::path(bootstrap.run_folder) / "logs";
  spdlog::sink_ptr sink;
  if (!sees_run_folder(bootstrap)) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
    auto logger = std::make_shared<spdlog::logger>(name, std::move(sink));
    logger->flush_on(spdlog::level::info);
    return logger;
  }
  try {  // spdlog reports a file that it cannot open by an exception
    std::error_code ignored;
    std::filesystem::create_directories(folder, ignored);
    sink = std::make_shared<spdlog::sinks::basic_file_sink_st>((folder / (std::string(name) + ".log")).string());
  } catch (const spdlog::spdlog_ex& error) {
    complain(error.what());
    sink = std::make_shared<spdlog::sinks::null_sink_st>();
  }
  auto logger = std::make_shared<spdlog::logger>(name, std::move(sink));
  logger->flush_on(spdlog::level::info);
  return logger;
}

// All that lives in the event loop, in the order in which it may go.
class Program {
 public:
  Program(const Bootstrap& bootstrap, GuardLink guard)
      : bootstrap_(bootstrap),
        mark_(*guard.mark),
        logger_(make_logger(bootstrap)),
        guard_(io_, guard.guard_pidfd.release()),
        door_(std::move(guard.door)),
        terminate_(io_, SIGTERM, SIGUSR1) {}

  int run() {
    guard_.async_wait(asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code error) {
      if (error) return;
      agent_->lose_guard();
    });
    watch_terminate();
    agent_.emplace(io_, bootstrap_, mark_, *logger_, [this](int code) { leave(code); });
    agent_->start();
    io_.run();
    logger_->info("exit code {}", exit_code_);
    return exit_code_;
  }

 private:
  void watch_terminate() {
    terminate_.async_wait([this](boost::system::error_code error, int signal) {
      if (error) return;
      watch_terminate();
      if (bootstrap_.signals_to_head) return agent_->notice(signal);
      if (signal == SIGUSR1) return;
      agent_->terminate();
    });
  }

  void leave(int exit_code) {
    exit_code_ = exit_code;
    io_.stop();
  }

  Bootstrap bootstrap_;
  ProcessMark& mark_;
  std::shared_ptr<spdlog::logger> logger_;
  asio::io_context io_{1};
  asio::posix::stream_descriptor guard_;
  UniqueFd door_;
  asio::signal_set terminate_;
  std::optional<NodeAgent> agent_;
  int exit_code_ = kExitHeadLost;
};

}  // namespace

int run_agent_program(GuardLink guard) {
  const auto bootstrap = read_bootstrap();
  if (!bootstrap) {
    complain(bootstrap.error().message);
    return kExitBadBootstrap;
  }
  if (!bootstrap->agent_sha256.empty()) {
    if (Status whole = settle_copy(bootstrap->agent_sha256); !whole) {
      complain(whole.error().message);
      return kExitBadBootstrap;
    }
  }
  if (bootstrap->lifeline) {
    const std::string name = "mds-" + job_to_hex(bootstrap->credentials.job) + "-" + std::to_string(bootstrap->node);
    if (Status locked = take_node_lock(guard.door.get(), name, kNodeLockPatience); !locked) {
      complain(locked.error().message);
      return kExitNoHead;
    }
    if (write(guard.to_guard.get(), &kWatchLifeline, 1) != 1) complain("the guard does not listen");
  }
  return Program(*bootstrap, std::move(guard)).run();
}

}  // namespace mds::agent
