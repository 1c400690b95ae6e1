// Gathering: agents come up first and bring their machines, so that the plan is made of what is really there.
#include <boost/asio/post.hpp>
#include <nlohmann/json.hpp>

#include "launcher/head.hpp"

namespace mds::launcher {

Result<std::vector<topology::Machine>> Head::gather() {
  gathering_ = true;
  machines_.assign(agents_.size(), std::nullopt);
  await_signal();
  timer_.expires_after(options_.supervisor.agents_deadline);
  timer_.async_wait([this](boost::system::error_code ec) {
    if (ec) return;
    std::string missing;
    int first = -1;
    for (size_t n = 0; n < machines_.size(); ++n) {
      if (machines_[n]) continue;
      missing += (missing.empty() ? "" : ", ") + std::to_string(n);
      if (first < 0) first = static_cast<int>(n);
    }
    fail_gathering("no agent came from node " + missing + " in time", first);
  });
  for (size_t n = 0; n < agents_.size() && gather_failure_.empty(); ++n) start_agent(static_cast<int>(n));
  if (gather_failure_.empty()) io_.run();
  io_.restart();
  timer_.cancel();
  gathering_ = false;
  if (gather_signal_ != 0) return Error{ErrorCode::denied, gather_failure_};
  if (!gather_failure_.empty()) return unavailable(gather_failure_);
  std::vector<topology::Machine> machines;
  for (std::optional<topology::Machine>& machine : machines_) machines.push_back(*std::move(machine));
  return machines;
}

void Head::gathered(int node, const agent::Message& hello) {
  const auto topology = hello.body.find("topology");
  if (topology == hello.body.end()) {
    return fail_gathering("the agent of node " + std::to_string(node) + " could not find out about its machine");
  }
  auto machine = topology::machine_from_json(*topology);
  if (!machine) return fail_gathering("node " + std::to_string(node) + ": " + machine.error().message);
  if (hello.body.value("sees_run_folder", nlohmann::json(true)) == false) blind_nodes_.push_back(node);
  machines_[static_cast<size_t>(node)] = *std::move(machine);
  for (const auto& one : machines_) {
    if (!one) return;
  }
  io_.stop();
}

void Head::fail_gathering(const std::string& why, int node) {
  if (gather_failure_.empty()) {
    gather_failure_ = why;
    gather_missing_ = node;
  }
  io_.stop();
}

Status Head::settle(SupervisorConfig supervisor, std::function<agent::NodeStart(int, uint32_t, int)> node_start,
                    HeadObserver observer) {
  options_.supervisor = std::move(supervisor);
  options_.node_start = std::move(node_start);
  observer_ = std::move(observer);
  started_ = std::chrono::steady_clock::now() - (options_.earlier ? options_.earlier->last_at() : TimePoint{0});
  supervisor_ = options_.earlier ? Supervisor(options_.supervisor, replay(*options_.earlier).state())
                                 : Supervisor(options_.supervisor);
  rendezvous_ = Rendezvous(supervisor_.world_size());
  status_ = HeadStatus(options_.supervisor);
  return open_log();
}

}  // namespace mds::launcher
