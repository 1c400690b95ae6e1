#include "agent/pmix_server.hpp"

#include <dlfcn.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "agent/pmix_plugin.hpp"
#include "agent/program_folder.hpp"

namespace mds::agent {

namespace {

/// Beside the program: as it is built, and as it is installed. It stays loaded.
Result<const MdsPmixPlugin*> load_plugin() {
  std::error_code ignored;
  const std::filesystem::path program = program_folder();
  std::string why = "libmds_pmix.so is not part of this build, for which libpmix-dev was missing";
  for (const char* place : {"../lib/libmds_pmix.so", "../lib/mds/libmds_pmix.so"}) {
    const std::string path = (program / place).string();
    if (!std::filesystem::exists(path, ignored)) continue;
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    void* const symbol = library ? dlsym(library, "mds_pmix_plugin") : nullptr;
    if (symbol) return reinterpret_cast<const MdsPmixPlugin* (*)()>(symbol)();
    why = dlerror();
  }
  return unavailable(why);
}

}  // namespace

/// What the library's threads call: it outlives the server.
struct PmixServer::Shared {
  boost::asio::any_io_executor executor;
  MpiWorld world;
  std::string folder;
  Events events;
  const MdsPmixPlugin* plugin = nullptr;
  std::atomic<bool> ended{false};

  static void at_fence(void* self, uint64_t number, const char* data, size_t bytes) {
    static_cast<Shared*>(self)->post([self, number, value = std::string(data ? data : "", bytes)] {
      static_cast<Shared*>(self)->events.at_fence(number, value);
    });
  }
  static void aborted(void* self, int rank, int code) {
    static_cast<Shared*>(self)->post(
        [self, rank, code] { static_cast<Shared*>(self)->events.on_abort(rank, exit_code_of_abort(code)); });
  }
  template <typename Function>
  void post(Function function) {
    if (ended) return;
    boost::asio::post(executor, [this, function = std::move(function)] {
      if (!ended) function();
    });
  }
};

Result<std::unique_ptr<PmixServer>> PmixServer::start(boost::asio::any_io_executor executor, const MpiWorld& world,
                                                      const std::string& folder, Events events) {
  const auto plugin = load_plugin();
  if (!plugin) return plugin.error().within("PMIx");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return unavailable("PMIx: cannot make the folder " + folder + ": " + error.message());
  // For ever: nobody says when the library's threads have made their last call.
  static std::vector<std::unique_ptr<Shared>> all;
  all.emplace_back(new Shared{std::move(executor), world, folder, std::move(events), *plugin});
  Shared* const shared = all.back().get();
  const MdsPmixWorld their_world{shared->world.job.c_str(), shared->folder.c_str(), world.size,
                                 world.nodes,               world.node,             world.ranks_per_node};
  const MdsPmixHost host{shared, Shared::at_fence, Shared::aborted};
  if (const char* wrong = (*plugin)->begin(&their_world, &host)) return unavailable(std::string("PMIx: ") + wrong);
  return std::unique_ptr<PmixServer>(new PmixServer(shared));
}

PmixServer::~PmixServer() {
  std::error_code ignored;
  shared_->ended = true;
  std::filesystem::remove_all(shared_->folder, ignored);
}

Result<std::map<std::string, std::string>> PmixServer::environment(int rank) const {
  char** const list = shared_->plugin->environment(rank);
  if (!list) return unavailable("PMIx: no environment for rank " + std::to_string(rank));
  std::map<std::string, std::string> out;
  for (char** entry = list; *entry; ++entry) {
    const std::string text = *entry;
    if (const size_t equals = text.find('='); equals != std::string::npos) {
      out[text.substr(0, equals)] = text.substr(equals + 1);
    }
    std::free(*entry);
  }
  std::free(list);
  return out;
}

void PmixServer::on_fence(uint64_t number, const std::vector<std::string>& values) {
  const std::string all = std::accumulate(values.begin(), values.end(), std::string());
  shared_->plugin->finish_fence(number, all.data(), all.size());
}

}  // namespace mds::agent
