// Node stage: brings the files of a run to a node that shares none with the launcher's machine, and serves the agents
// below it with the same ones.
//
// The head names one file by its digest: the list of all others (agent/stage_list.hpp). An agent asks whoever is above
// it in the tree for what its store lacks, in parts, a few at a time; it answers those below as soon as it has a part
// itself. So the head reads each part for its own children only, whatever the number of nodes; nobody keeps a file in
// memory; and who loses its parent asks the next one from where it was.
//
// Invariants
//   N1  on_ready reports success only when every file of the list is in its place and its bytes, read or received just
//       now, have the digest that the head has announced.
//   N2  The event loop is never held for longer than a part takes: heartbeats go on.
//
// Threads: the one that runs the io_context.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>
#include <nlohmann/json_fwd.hpp>

#include "agent/process_tree.hpp"
#include "agent/rank_spec.hpp"
#include "topology/result.hpp"

namespace mds::agent {

class NodeStage {
 public:
  struct Events {
    std::function<void(const nlohmann::json&)> ask;  ///< to the parent: a stage_ask, answered by on_part()
    std::function<void(const std::string&)> on_note;
  };
  using Reply = std::function<void(const nlohmann::json& stage_part)>;

  /// `mark` is shared with the guard and outlives this.
  NodeStage(boost::asio::io_context& io, ProcessMark& mark, Events events);
  /// Leaves the store.
  ~NodeStage();

  /// Of files, from the parent, since the last start() that began anew.
  uint64_t received_bytes() const;

  /// `on_ready` is called once, perhaps from within this call, unless cancel() or another start() comes first. What
  /// was staged before by this agent is there still. Errors: corrupt (file and both digests), denied, unavailable.
  void start(const StageSpec& spec, std::function<void(Status)> on_ready);
  void cancel();

  void on_part(const nlohmann::json& body);
  /// There is another parent: what was asked is asked again.
  void ask_again();

  /// A child's stage_ask; answered once the part is here, or never if it does not come.
  void on_ask(const nlohmann::json& body, Reply reply);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mds::agent
