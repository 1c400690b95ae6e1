#include "agent/node_container.hpp"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <boost/asio/post.hpp>

#include "container/image_store.hpp"
#include "container/runtimes.hpp"

namespace mds::agent {
namespace {

constexpr std::chrono::seconds kStartPatience{60};  // a large image on a busy file system

/// What the job names and this node has not, before a runtime says so in its own words. Errors: unavailable.
Status all_there(const container::Container& container) {
  constexpr const char* kRemedy = " on this node: put it on a file system that every node sees, or ";
  const auto is_missing = [](const std::string& path) { return access(path.c_str(), F_OK) != 0 && errno == ENOENT; };
  if (is_missing(container.image)) {
    return unavailable("there is no image " + container.image + kRemedy + "have it sent to them: stage.enabled = true");
  }
  for (const container::Bind& bind : container.binds) {
    if (!is_missing(bind.source)) continue;
    return unavailable("there is no " + bind.source + ", which is to be bound as " + bind.target + "," + kRemedy +
                       "have it sent to them: stage.enabled = true, and name it in stage.files");
  }
  return {};
}

}  // namespace

// Shared with the thread, which may outlive the NodeContainer while it copies an image.
struct NodeContainer::Work {
  std::mutex mutex;                   // over everything below
  boost::asio::io_context* io = nullptr;  // null: nobody wants to hear of it any more
  bool starting = false;              // the thread may fork
  std::optional<container::Session> session;
  std::function<void(Status)> on_ready;
  ProcessMark* mark = nullptr;

  void run(container::Container container, const std::string& image_store, const std::string& name,
           const std::shared_ptr<Work>& self);
  Status start(const container::Container& container, const std::string& name);
};

Status NodeContainer::Work::start(const container::Container& container, const std::string& name) {
  {
    const std::lock_guard lock(mutex);
    if (!io) return unavailable("not wanted any more");
    starting = true;
  }
  auto started = container::start_container(container, name, kStartPatience);
  const std::lock_guard lock(mutex);
  starting = false;
  if (!started) return started.error();
  session = *std::move(started);
  if (io) mark->expect_container(session->cleanup());
  return {};
}

void NodeContainer::Work::run(container::Container container, const std::string& image_store, const std::string& name,
                              const std::shared_ptr<Work>& self) {
  Status status = all_there(container);
  if (status) {
    const auto staged = container::stage_image(container, image_store);
    if (staged) container.image = staged->path;
    status = staged ? start(container, name) : Status(staged.error());
  }
  const std::lock_guard lock(mutex);
  if (!io) {
    if (session) session->let_go();
    return;
  }
  boost::asio::post(*io, [self, status] {
    std::function<void(Status)> handler;
    {
      const std::lock_guard lock_inside(self->mutex);
      if (self->io) handler = std::move(self->on_ready);
    }
    if (handler) handler(status);
  });
}

NodeContainer::NodeContainer(boost::asio::io_context& io, const container::Container& container,
                             const std::string& image_store, const std::string& name, ProcessMark& mark,
                             std::function<void(Status)> on_ready)
    : work_(std::make_shared<Work>()) {
  work_->io = &io;
  work_->mark = &mark;
  work_->on_ready = std::move(on_ready);
  std::thread([work = work_, container, image_store, name] {
    work->run(container, image_store, name, work);
  }).detach();
}

NodeContainer::~NodeContainer() { forget(); }

const container::Session& NodeContainer::session() const { return *work_->session; }

bool NodeContainer::forget() {
  const std::lock_guard lock(work_->mutex);
  work_->io = nullptr;
  if (work_->session) work_->session->let_go();
  return !work_->starting;
}

void NodeContainer::clean_up() {
  const std::lock_guard lock(work_->mutex);
  if (work_->session) work_->session->clean_up();
}

}  // namespace mds::agent
