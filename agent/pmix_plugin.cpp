#include "agent/pmix_plugin.hpp"

#include <pmix.h>
#include <pmix_server.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Fence {
  pmix_modex_cbfunc_t done;
  void* data;
};

/// The attempt that runs. The library has one server a process, so there is one of these.
struct Attempt {
  std::mutex mutex;
  MdsPmixWorld world{};
  MdsPmixHost host{};
  std::string name{};
  uint64_t fences_begun = 0;
  std::map<uint64_t, Fence> fences{};
  bool library_runs = false;
  std::string error{};
} attempt;

/// Waits for what the library calls when it has done something.
class Waiter {
 public:
  static void done(pmix_status_t status, void* self) { static_cast<Waiter*>(self)->finish(status); }
  pmix_status_t wait(pmix_status_t begun) {
    if (begun == PMIX_OPERATION_SUCCEEDED) return PMIX_SUCCESS;
    if (begun != PMIX_SUCCESS) return begun;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finished_; });
    return status_;
  }

 private:
  void finish(pmix_status_t status) {
    const std::lock_guard lock(mutex_);
    status_ = status;
    finished_ = true;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool finished_ = false;
  pmix_status_t status_ = PMIX_SUCCESS;
};

/// A list of PMIx's facts ("info") that grows.
class Facts {
 public:
  ~Facts() {
    for (pmix_info_t& info : list_) {
      PMIX_INFO_DESTRUCT(&info);
    }
  }
  void number(const char* key, uint32_t value) { add(key, &value, PMIX_UINT32); }
  void small(const char* key, int value) {
    const auto narrow = static_cast<uint16_t>(value);
    add(key, &narrow, PMIX_UINT16);
  }
  void rank(const char* key, int value) {
    const auto as_rank = static_cast<pmix_rank_t>(value);
    add(key, &as_rank, PMIX_PROC_RANK);
  }
  void text(const char* key, const std::string& value) { add(key, value.c_str(), PMIX_STRING); }
  void flag(const char* key, bool value) { add(key, &value, PMIX_BOOL); }
  /// A text of the library's own making, which may be no C string.
  void regex(const char* key, char* value) {
    add(key, value, PMIX_REGEX);
    std::free(value);
  }
  void list(const char* key, Facts& facts) {
    pmix_data_array_t array{PMIX_INFO, facts.list_.size(), facts.list_.data()};
    add(key, &array, PMIX_DATA_ARRAY);
  }
  pmix_info_t* data() { return list_.data(); }
  size_t size() const { return list_.size(); }

 private:
  void add(const char* key, const void* value, pmix_data_type_t type) {
    pmix_info_t* const info = &list_.emplace_back();  // these macros use their argument more than once
    PMIX_INFO_CONSTRUCT(info);
    PMIX_INFO_LOAD(info, key, value, type);
  }
  std::vector<pmix_info_t> list_;
};

// --- called by the library ------------------------------------------------------------------------------------------

pmix_status_t client_connected(const pmix_proc_t*, void*, pmix_info_t[], size_t, pmix_op_cbfunc_t, void*) {
  return PMIX_OPERATION_SUCCEEDED;
}

pmix_status_t client_finalized(const pmix_proc_t*, void*, pmix_op_cbfunc_t, void*) { return PMIX_OPERATION_SUCCEEDED; }

pmix_status_t client_aborted(const pmix_proc_t* who, void*, int status, const char[], pmix_proc_t[], size_t,
                             pmix_op_cbfunc_t, void*) {
  if (!who) return PMIX_ERR_BAD_PARAM;
  attempt.host.aborted(attempt.host.context, static_cast<int>(who->rank), status);
  return PMIX_SUCCESS;  // an answer would follow, after which the rank would leave by itself
}

pmix_status_t fence(const pmix_proc_t ranks[], size_t count, const pmix_info_t[], size_t, char* data, size_t bytes,
                    pmix_modex_cbfunc_t done, void* token) {
  const std::unique_lock lock(attempt.mutex);
  const bool of_all =
      count == static_cast<size_t>(attempt.world.size) || (count == 1 && ranks[0].rank == PMIX_RANK_WILDCARD);
  if (!of_all) return PMIX_ERR_NOT_SUPPORTED;
  const uint64_t number = attempt.fences_begun++;
  attempt.fences[number] = {done, token};
  attempt.host.at_fence(attempt.host.context, number, data, bytes);
  return PMIX_SUCCESS;
}

/// Whatever a rank has put is everywhere after the fence: what is not there does not exist.
pmix_status_t fetch(const pmix_proc_t*, const pmix_info_t[], size_t, pmix_modex_cbfunc_t, void*) {
  return PMIX_ERR_NOT_FOUND;
}

// --- called by the agent --------------------------------------------------------------------------------------------

const char* failed(const char* what, pmix_status_t status) {
  attempt.error = std::string(what) + ": " + PMIx_Error_string(status);
  return attempt.error.c_str();
}

pmix_status_t start_library(const MdsPmixWorld& world) {
  // Newer libraries read a longer table than the one that we know.
  static union {
    pmix_server_module_t table;
    char room[2048];
  } module;
  std::memset(&module, 0, sizeof module);
  module.table.client_connected2 = client_connected;
  module.table.client_finalized = client_finalized;
  module.table.abort = client_aborted;
  module.table.fence_nb = fence;
  module.table.direct_modex = fetch;
  setenv("PMIX_MCA_gds", "hash", 1);  // no shared-memory files that outlive us
  Facts facts;
  facts.text(PMIX_SERVER_TMPDIR, world.folder);
  facts.text(PMIX_SYSTEM_TMPDIR, world.folder);
  facts.flag(PMIX_SERVER_TOOL_SUPPORT, false);
  facts.text(PMIX_HOSTNAME, "node" + std::to_string(world.node));
  return PMIx_server_init(&module.table, facts.data(), facts.size());
}

/// "node0,node1" and "0,1;2,3", in the library's own short forms.
pmix_status_t add_maps(const MdsPmixWorld& world, Facts& facts) {
  std::string nodes, ranks;
  for (int node = 0; node < world.nodes; ++node) {
    nodes += (node ? "," : "") + ("node" + std::to_string(node));
    for (int i = 0; i < world.ranks_per_node; ++i) {
      ranks += (i ? "," : node ? ";" : "") + std::to_string(node * world.ranks_per_node + i);
    }
  }
  char *node_map = nullptr, *rank_map = nullptr;
  if (const pmix_status_t status = PMIx_generate_regex(nodes.c_str(), &node_map); status != PMIX_SUCCESS) return status;
  facts.regex(PMIX_NODE_MAP, node_map);
  if (const pmix_status_t status = PMIx_generate_ppn(ranks.c_str(), &rank_map); status != PMIX_SUCCESS) return status;
  facts.regex(PMIX_PROC_MAP, rank_map);
  return PMIX_SUCCESS;
}

void add_rank(const MdsPmixWorld& world, int rank, Facts& facts) {
  const int node = rank / world.ranks_per_node, local = rank % world.ranks_per_node;
  Facts own;
  own.rank(PMIX_RANK, rank);
  own.rank(PMIX_GLOBAL_RANK, rank);
  own.rank(PMIX_APP_RANK, rank);
  own.number(PMIX_APPNUM, 0);
  own.small(PMIX_LOCAL_RANK, local);
  own.small(PMIX_NODE_RANK, local);
  own.number(PMIX_NODEID, static_cast<uint32_t>(node));
  own.text(PMIX_HOSTNAME, "node" + std::to_string(node));
  facts.list(PMIX_PROC_DATA, own);
}

pmix_status_t describe_world(const MdsPmixWorld& world, Facts& facts) {
  const auto size = static_cast<uint32_t>(world.size), local = static_cast<uint32_t>(world.ranks_per_node);
  const int first = world.node * world.ranks_per_node;
  std::string peers;
  for (int i = 0; i < world.ranks_per_node; ++i) peers += (i ? "," : "") + std::to_string(first + i);
  for (const char* key : {PMIX_UNIV_SIZE, PMIX_JOB_SIZE, PMIX_APP_SIZE, PMIX_MAX_PROCS}) facts.number(key, size);
  for (const char* key : {PMIX_LOCAL_SIZE, PMIX_NODE_SIZE}) facts.number(key, local);
  facts.number(PMIX_JOB_NUM_APPS, 1);
  facts.number(PMIX_NUM_NODES, static_cast<uint32_t>(world.nodes));
  facts.number(PMIX_NODEID, static_cast<uint32_t>(world.node));
  facts.text(PMIX_JOBID, world.name);
  facts.text(PMIX_LOCAL_PEERS, peers);
  facts.rank(PMIX_LOCALLDR, first);
  facts.rank(PMIX_APPLDR, 0);
  if (const pmix_status_t status = add_maps(world, facts); status != PMIX_SUCCESS) return status;
  for (int rank = 0; rank < world.size; ++rank) add_rank(world, rank, facts);
  return PMIX_SUCCESS;
}

pmix_proc_t rank_of_attempt(int rank) {
  pmix_proc_t proc;
  PMIX_LOAD_PROCID(&proc, attempt.name.c_str(), static_cast<pmix_rank_t>(rank));
  return proc;
}

const char* begin(const MdsPmixWorld* world, const MdsPmixHost* host) {
  std::string earlier;
  {
    const std::lock_guard lock(attempt.mutex);
    earlier = std::exchange(attempt.name, world->name);
    attempt.world = *world;
    attempt.host = *host;
    attempt.fences_begun = 0;
    attempt.fences.clear();
  }
  if (!attempt.library_runs) {
    if (const pmix_status_t status = start_library(*world); status != PMIX_SUCCESS) return failed("start", status);
    attempt.library_runs = true;
  }
  if (!earlier.empty()) {
    Waiter gone;
    PMIx_server_deregister_nspace(earlier.c_str(), Waiter::done, &gone);
    gone.wait(PMIX_SUCCESS);
  }
  Facts facts;
  if (const pmix_status_t status = describe_world(*world, facts); status != PMIX_SUCCESS) return failed("map", status);
  Waiter registered;
  const pmix_status_t status = registered.wait(PMIx_server_register_nspace(
      world->name, world->ranks_per_node, facts.data(), facts.size(), Waiter::done, &registered));
  if (status != PMIX_SUCCESS) return failed("register the run", status);
  for (int i = 0; i < world->ranks_per_node; ++i) {
    const pmix_proc_t proc = rank_of_attempt(world->node * world->ranks_per_node + i);
    Waiter known;
    const pmix_status_t added = known.wait(
        PMIx_server_register_client(&proc, geteuid(), getegid(), nullptr, Waiter::done, &known));
    if (added != PMIX_SUCCESS) return failed("register a rank", added);
  }
  return nullptr;
}

char** environment(int rank) {
  char** list = nullptr;
  const pmix_proc_t proc = rank_of_attempt(rank);
  return PMIx_server_setup_fork(&proc, &list) == PMIX_SUCCESS ? list : nullptr;
}

void finish_fence(uint64_t number, const char* data, size_t bytes) {
  Fence fence{};
  {
    const std::lock_guard lock(attempt.mutex);
    const auto at = attempt.fences.find(number);
    if (at == attempt.fences.end()) return;
    fence = at->second;
    attempt.fences.erase(at);
  }
  char* copy = static_cast<char*>(std::malloc(bytes > 0 ? bytes : 1));
  std::memcpy(copy, data, bytes);
  fence.done(PMIX_SUCCESS, copy, bytes, fence.data, std::free, copy);
}

}  // namespace

const MdsPmixPlugin* mds_pmix_plugin() {
  static const MdsPmixPlugin plugin{begin, environment, finish_fence};
  return &plugin;
}
