// The container of one node in one attempt: its image staged and the container started beside the event loop, and in
// the end its processes gone and nothing of it left.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>

#include "agent/process_tree.hpp"
#include "container/container.hpp"
#include "container/session.hpp"

namespace mds::agent {

/// Threads: all calls and the callback on the io_context's thread. What takes long runs on a thread of its own.
class NodeContainer {
 public:
  /// Makes the image ready in `image_store` (container/image_store.hpp) and starts the container. `on_ready` is called
  /// once, unless forget() comes first: with no error the container runs. `name` tells this container from all others
  /// on the node. `mark` is told how the guard has to clean up.
  NodeContainer(boost::asio::io_context& io, const container::Container& container, const std::string& image_store,
                const std::string& name, ProcessMark& mark, std::function<void(Status)> on_ready);
  ~NodeContainer();
  NodeContainer(const NodeContainer&) = delete;

  /// Requires that on_ready has reported success.
  const container::Session& session() const;

  /// The container is not wanted any more: what waits for its end, ends. False while a thread may still start one of
  /// its processes: call again.
  bool forget();

  /// After its processes were killed: removes what the runtime would leave behind. Blocks, 10 s at most.
  void clean_up();

 private:
  struct Work;
  std::shared_ptr<Work> work_;
};

}  // namespace mds::agent
