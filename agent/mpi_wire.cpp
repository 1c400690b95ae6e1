#include "agent/mpi_wire.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>

namespace mds::agent {

namespace {

/// Open MPI 4 asks its environment who has started it: where it knows none of the names, or finds a Slurm job but no
/// step around it, it takes itself for alone. The parts of it that do so are left out. Its shared memory goes where we
/// remove it, whatever became of the ranks.
std::map<std::string, std::string> open_mpi_environment(const std::string& folder) {
  return {{"OMPI_MCA_schizo", "^orte,slurm"},
          {"OMPI_MCA_btl_vader_backing_directory", folder},  // Open MPI 4
          {"OMPI_MCA_btl_sm_backing_directory", folder}};    // Open MPI 5
}

constexpr const char* kMemory = "/dev/shm";
const std::string kFolder = "mds-";
const std::string kBarrier = std::string(MpiWire::kPrefix) + "pmi/", kFence = std::string(MpiWire::kPrefix) + "pmix/";

}  // namespace

Result<MpiWorld> mpi_world(const NodeStart& start) {
  const auto& env = start.ranks.at(0).env;
  const auto number = [&](const char* name) {
    const auto at = env.find(name);
    int value = -1;
    if (at != env.end()) std::from_chars(at->second.data(), at->second.data() + at->second.size(), value);
    return value;
  };
  const auto run = env.find("MDS_RUN_ID");
  MpiWorld world;
  world.job = (run == env.end() ? "mds" : run->second) + "." + std::to_string(start.attempt);
  world.size = number("WORLD_SIZE");
  world.nodes = number("GROUP_WORLD_SIZE");
  world.node = number("GROUP_RANK");
  world.ranks_per_node = static_cast<int>(start.ranks.size());
  int expected = world.first_rank();
  const bool in_order =
      std::all_of(start.ranks.begin(), start.ranks.end(), [&](const auto& spec) { return spec.rank == expected++; });
  if (world.node < 0 || world.size != world.nodes * world.ranks_per_node || !in_order) {
    return bad_input("payload.mpi needs ranks that are numbered node after node, as many on each");
  }
  return world;
}

std::string mpi_folder(const MpiWorld& world) {
  return std::string(kMemory) + "/" + kFolder + world.job + "-n" + std::to_string(world.node);
}

void remove_mpi_folders(const std::string& run_id) {
  namespace fs = std::filesystem;
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator at(kMemory, error), end; !error && at != end; at.increment(error)) {
    if (at->path().filename().string().starts_with(kFolder + run_id + ".")) found.push_back(at->path());
  }
  for (const fs::path& path : found) fs::remove_all(path, error);
}

MpiWire::MpiWire(boost::asio::io_context& io, const MpiWorld& world, const std::string& folder, Events events)
    : world_(world),
      folder_(folder),
      events_(std::move(events)),
      pmi_(io.get_executor(), world,
           {[this](uint64_t number, const std::string& value) {
              events_.exchange(kBarrier + std::to_string(number), value);
            },
            events_.on_note, events_.on_abort}) {
  auto pmix = PmixServer::start(
      io.get_executor(), world, folder,
      {[this](uint64_t number, const std::string& value) { events_.exchange(kFence + std::to_string(number), value); },
       events_.on_abort});
  if (pmix) {
    pmix_ = *std::move(pmix);
  } else {
    events_.on_note(pmix.error().message + "; programs of Open MPI will find themselves alone");
  }
}

Result<MpiWire::RankSide> MpiWire::join(int rank) {
  auto socket = pmi_.connect(rank);
  if (!socket) return socket.error();
  RankSide side{*std::move(socket), pmi_.environment(rank)};
  if (!pmix_) return side;
  const auto environment = pmix_->environment(rank);
  if (!environment) return environment.error();
  side.environment.insert(environment->begin(), environment->end());
  side.environment.merge(open_mpi_environment(folder_));
  return side;
}

Status MpiWire::on_exchange(const std::string& name, const std::vector<std::string>& values) {
  if (name.starts_with(kBarrier)) return pmi_.on_barrier(values);
  uint64_t number = 0;
  const bool is_fence = name.starts_with(kFence) && pmix_;
  if (!is_fence || std::from_chars(name.data() + kFence.size(), name.data() + name.size(), number).ec != std::errc()) {
    return corrupt("an exchange '" + name + "' that nobody has begun");
  }
  pmix_->on_fence(number, values);
  return {};
}

}  // namespace mds::agent
