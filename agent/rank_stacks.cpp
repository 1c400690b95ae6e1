#include "agent/rank_stacks.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "agent/program_folder.hpp"
#include "agent/rank_process.hpp"
#include "agent/unique_fd.hpp"

namespace mds::agent {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::chrono::seconds kTimeout{15};
constexpr size_t kBytesMax = 16u << 20;

/// One run of mdsstack; keeps itself alive while it is read.
struct Reading : std::enable_shared_from_this<Reading> {
  Reading(asio::io_context& io, int fd, UniqueFd p, std::function<void(Result<nlohmann::json>)> h)
      : output(io, fd), deadline(io), process(std::move(p)), handler(std::move(h)) {}

  void begin() {
    deadline.expires_after(kTimeout);
    deadline.async_wait([self = shared_from_this()](error_code error) {
      if (!error) self->finish(unavailable("reading the stacks took more than 15 s"));
    });
    read();
  }

  void read() {
    output.async_read_some(asio::buffer(chunk), [self = shared_from_this()](error_code error, size_t size) {
      if (!self->handler) return;
      self->text.append(self->chunk.data(), size);
      if (self->text.size() > kBytesMax) return self->finish(unavailable("the stacks are more than 16 MiB"));
      if (!error) return self->read();
      auto json = nlohmann::json::parse(self->text, nullptr, /*allow_exceptions=*/false);
      if (!json.is_array()) return self->finish(unavailable("mdsstack has failed"));
      self->finish(std::move(json));
    });
  }

  void finish(Result<nlohmann::json> result) {
    send_signal(process.get(), SIGKILL);  // no effect on one that has ended
    deadline.cancel();
    error_code ignored;
    output.close(ignored);
    if (const auto once = std::exchange(handler, nullptr)) once(std::move(result));
  }

  asio::posix::stream_descriptor output;
  asio::steady_timer deadline;
  UniqueFd process;
  std::function<void(Result<nlohmann::json>)> handler;
  std::array<char, 16 << 10> chunk;
  std::string text;
};

Result<std::string> program_beside_us() {
  const std::string program = program_folder() + "/mdsstack";
  if (access(program.c_str(), X_OK) != 0) return unavailable(program + " is missing: it is installed with mdsagent");
  return program;
}

Result<std::shared_ptr<Reading>> start(asio::io_context& io, const std::vector<pid_t>& pids,
                                       std::function<void(Result<nlohmann::json>)> handler) {
  auto program = program_beside_us();
  if (!program) return program.error();
  std::vector<std::string> words{"mdsstack"};
  for (const pid_t pid : pids) words.push_back(std::to_string(pid));
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return system_error("pipe", errno);
  UniqueFd reader(ends[0]), writer(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, writer.get(), STDOUT_FILENO);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, program->c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return unavailable("cannot start mdsstack: " + std::string(std::strerror(error)));
  return std::make_shared<Reading>(io, reader.release(), open_pidfd(pid), std::move(handler));
}

}  // namespace

void read_stacks(asio::io_context& io, const std::vector<pid_t>& pids,
                 std::function<void(Result<nlohmann::json>)> handler) {
  auto reading = start(io, pids, handler);
  if (!reading) return asio::post(io, [error = reading.error(), handler = std::move(handler)] { handler(error); });
  (*reading)->begin();
}

}  // namespace mds::agent
