#include "trainer/comm/groups.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include <c10/util/Exception.h>

#include "trainer/comm/cpu.hpp"

namespace mds::trainer {
namespace {

using topology::Axis;

GroupMembers members(const std::string& kind, std::vector<int> ranks) {
  std::string name = kind + ":";
  for (size_t i = 0; i < ranks.size(); ++i) name += (i ? "," : "") + std::to_string(ranks[i]);
  return {std::move(name), std::move(ranks)};
}

/// The groups of one rank, in the order of ProcessGroups' members.
struct Membership {
  GroupMembers world, tensor, pipeline, data, embedding;
};

Membership membership(const topology::RankGrid& grid, int rank, bool tied_embeddings) {
  std::vector<int> everyone(grid.world_size());
  std::iota(everyone.begin(), everyone.end(), 0);
  const std::vector<int> stages = grid.group(Axis::pipeline, rank);
  const bool at_an_end = rank == stages.front() || rank == stages.back();
  std::vector<int> ends{rank};
  if (tied_embeddings && stages.size() > 1 && at_an_end) ends = {stages.front(), stages.back()};
  return {members("world", everyone), members("tensor", grid.group(Axis::tensor, rank)), members("pipeline", stages),
          members("data", grid.group(Axis::data, rank)), members("embedding", ends)};
}

int place(const GroupMembers& group, int rank) {
  return static_cast<int>(std::find(group.ranks.begin(), group.ranks.end(), rank) - group.ranks.begin());
}

Result<ProcessGroups> make_cpu_groups(const Membership& of, int rank, agent::RankControl& control,
                                      const ConnectOptions& options) {
  const std::vector<GroupMembers> groups{of.world, of.tensor, of.pipeline, of.data, of.embedding};
  auto sockets = connect_groups(groups, rank, static_cast<int>(of.world.ranks.size()), control, options);
  if (!sockets) return sockets.error();
  const auto make = [&](size_t i) {
    return make_cpu_communicator(groups[i].name, place(groups[i], rank), std::move((*sockets)[i]));
  };
  return ProcessGroups{make(0), make(1), make(2), make(3), make(4), nullptr};
}

Result<std::unique_ptr<Communicator>> make_nccl(const GroupMembers& group, int rank, agent::RankControl& control,
                                                const CudaPlugin& cuda) {
  if (group.ranks.size() == 1) return make_single_communicator(group.name);
  const int index = place(group, rank), count = static_cast<int>(group.ranks.size());
  NcclId id{};
  if (index == 0) cuda.unique_id(id);
  const std::string own = index == 0 ? std::string(id.begin(), id.end()) : "";
  auto values = control.exchange("nccl-" + group.name, index, count, own);
  if (!values) return values.error().within("exchange of NCCL ids");
  if (values->front().size() != id.size()) return internal("exchange of NCCL ids: rank 0 sent a malformed id");
  std::copy(values->front().begin(), values->front().end(), id.begin());
  return std::unique_ptr<Communicator>(cuda.make_communicator(group.name.c_str(), index, count, id));
}

Result<ProcessGroups> make_cuda_groups(const Membership& of, int rank, agent::RankControl& control,
                                       const GroupOptions& options) {
  ProcessGroups groups;
  auto sockets = connect_groups({of.world}, rank, static_cast<int>(of.world.ranks.size()), control, options.connect);
  if (!sockets) return sockets.error();
  groups.host = make_cpu_communicator("host", rank, std::move((*sockets)[0]));
  // Every rank goes through the kinds of groups in this order, so that no two wait for each other.
  const std::pair<const GroupMembers*, std::unique_ptr<Communicator>*> kinds[] = {
      {&of.world, &groups.world}, {&of.tensor, &groups.tensor},       {&of.pipeline, &groups.pipeline},
      {&of.data, &groups.data},   {&of.embedding, &groups.embedding},
  };
  for (const auto& [group, made] : kinds) {
    auto communicator = make_nccl(*group, rank, control, *options.cuda);
    if (!communicator) return communicator.error();
    *made = std::move(*communicator);
  }
  return groups;
}

}  // namespace

Result<ProcessGroups> make_groups(const topology::RankGrid& grid, int rank, agent::RankControl& control,
                                  const GroupOptions& options) {
  const Membership of = membership(grid, rank, options.tied_embeddings);
  try {
    if (grid.world_size() == 1) {
      return ProcessGroups{make_single_communicator("world"),    make_single_communicator("tensor"),
                           make_single_communicator("pipeline"), make_single_communicator("data"),
                           make_single_communicator("embedding"), nullptr};
    }
    return options.cuda ? make_cuda_groups(of, rank, control, options)
                        : make_cpu_groups(of, rank, control, options.connect);
  } catch (const c10::Error& error) {
    return unavailable(std::string("process groups: ") + error.what_without_backtrace());
  }
}

}  // namespace mds::trainer
