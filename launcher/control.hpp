// Control: how other commands speak with the head of a run in progress. Requests and replies are JSON objects, one a
// line, over the Unix socket <run>/control.sock. The run folder is its owner's alone (0700), so is the socket (0600),
// and the peer's user is checked. From another node of a shared file system the same requests travel as `control`
// messages to the head's listener, with the key that <run>/control.json (0600) holds while the run is in progress.
//
//   {"command": "status"}               -> HeadStatus::to_json()
//   {"command": "stop", "how": "..."}   -> {"ok": true}; how: "graceful", "now" or "requeue"
//   {"command": "stacks"}               -> {"file": path, "text": ..., "missing": [node]}
//   {"command": "hold", "rank": R}      -> {"ok": true}; R is in a debugger: for kHoldTime silence is no hang
//   anything else                       -> {"error": text}
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "agent/credentials.hpp"
#include "launcher/run_folder.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

/// May be called once, at any time later; it does nothing when the peer has gone.
using ControlReply = std::function<void(const nlohmann::json&)>;
using ControlHandler = std::function<void(const nlohmann::json& request, ControlReply reply)>;

/// The head's side. Threads: the one that runs the io_context.
class ControlServer {
 public:
  static constexpr size_t kLineBytesMax = 64u << 10;  ///< of a request
  static constexpr int kPeersMax = 16;                ///< at a time; more are turned away

  /// Makes the socket; one that a dead head has left is replaced. Errors: unavailable.
  static Result<std::unique_ptr<ControlServer>> open(boost::asio::io_context& io, const std::string& run_folder,
                                                     ControlHandler handler);
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;
  ~ControlServer();  ///< removes the socket; peers see the end of their connection

 private:
  struct Impl;
  explicit ControlServer(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

/// Where to reach the head from another node.
struct ControlAddress {
  std::string host;  ///< where the head runs
  std::string address;
  uint16_t port = 0;
  agent::Credentials credentials;
};
/// Writes <run>/control.json, mode 0600. Errors: unavailable.
Status write_control_address(const std::string& run_folder, const ControlAddress& address);
void remove_control_address(const std::string& run_folder);

/// The other side: blocking.
class ControlClient {
 public:
  /// Errors: unavailable (nobody answers, with what to do about it), denied (not the owner).
  static Result<std::unique_ptr<ControlClient>> connect(const RunFolder& folder);
  virtual ~ControlClient() = default;

  /// One request at a time; waits for its reply. Errors: unavailable; bad_input when the reply is an {"error"}.
  virtual Result<nlohmann::json> ask(const nlohmann::json& request) = 0;
  /// Returns when the head has gone, or is silent for `seconds`: false.
  virtual bool wait_for_end(double seconds) = 0;
};

}  // namespace mds::launcher
