// Head control: answers the requests that come over the run's control socket (launcher/control.hpp).
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "launcher/control.hpp"
#include "launcher/supervisor.hpp"

namespace mds::launcher {

/// Threads: the head's only.
class HeadControl {
 public:
  /// What it needs of the head; must outlive it.
  struct Hands {
    std::function<nlohmann::json()> status;
    std::function<void(Event)> handle;
    std::function<std::vector<int>()> joined_nodes;
    std::function<void(int node, const nlohmann::json& body)> ask_for_stacks;
    std::function<void(const std::string&)> note;
  };

  /// Without a socket (a file system that knows none) the run goes on, and a note says so.
  HeadControl(boost::asio::io_context& io, const std::string& run_folder, Hands hands);

  void request(const nlohmann::json& request, ControlReply reply);
  /// What a node answered to ask_for_stacks.
  void on_stacks(int node, const nlohmann::json& body);
  void on_node_lost(int node);

 private:
  struct Gathering {
    std::set<int> waiting;  ///< nodes that have not answered
    std::vector<int> missing;
    nlohmann::json ranks = nlohmann::json::array();
    std::vector<std::string> errors;
    std::vector<ControlReply> replies;
  };
  void stop(const nlohmann::json& request, const ControlReply& reply);
  void hold(const nlohmann::json& request, const ControlReply& reply);
  void gather_stacks(ControlReply reply);
  void finish_if_complete();
  void finish_stacks();

  std::string run_folder_;
  Hands hands_;
  boost::asio::steady_timer timer_;
  std::optional<Gathering> gathering_;
  int64_t gathering_id_ = 0;
  std::unique_ptr<ControlServer> server_;
};

}  // namespace mds::launcher
