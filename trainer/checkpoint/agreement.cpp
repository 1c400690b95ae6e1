#include "trainer/checkpoint/agreement.hpp"

#include <ATen/ops/empty.h>

#include <cstring>

namespace mds::trainer {
namespace {

at::Tensor to_bytes(const std::string& text) {
  at::Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  if (!text.empty()) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  return bytes;
}

std::string to_text(const at::Tensor& bytes) {
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<size_t>(bytes.numel())};
}

/// One number of every rank, by rank.
std::vector<int64_t> gather_numbers(Communicator& world, int64_t mine) {
  at::Tensor input = at::empty({1}, at::kLong), output = at::empty({world.size()}, at::kLong);
  *input.mutable_data_ptr<int64_t>() = mine;
  world.all_gather(output, input);
  const int64_t* numbers = output.const_data_ptr<int64_t>();
  return {numbers, numbers + world.size()};
}

}  // namespace

Status agree(Communicator& world, const Status& mine) {
  // Success is -1, an error the length of its text, which begins with a letter for the code.
  std::string text;
  if (!mine) text = static_cast<char>('a' + static_cast<int>(mine.error().code)) + mine.error().message;
  const std::vector<int64_t> lengths = gather_numbers(world, mine ? -1 : static_cast<int64_t>(text.size()));
  for (int rank = 0; rank < world.size(); ++rank) {
    const int64_t length = lengths[static_cast<size_t>(rank)];
    if (length < 0) continue;
    at::Tensor bytes = rank == world.rank() ? to_bytes(text) : at::empty({length}, at::kByte);
    world.broadcast(bytes, rank);
    const std::string first = to_text(bytes);
    Error error{static_cast<ErrorCode>(first[0] - 'a'), first.substr(1)};
    return world.size() == 1 ? error : error.within("rank " + std::to_string(rank));
  }
  return {};
}

std::vector<std::string> gather_texts(Communicator& world, const std::string& mine) {
  const std::vector<int64_t> lengths = gather_numbers(world, static_cast<int64_t>(mine.size()));
  if (world.rank() != 0) {
    world.transfer({{PeerTransfer::Kind::send, to_bytes(mine), 0}});
    return {};
  }
  std::vector<PeerTransfer> transfers;
  for (int rank = 1; rank < world.size(); ++rank) {
    transfers.push_back(
        {PeerTransfer::Kind::receive, at::empty({lengths[static_cast<size_t>(rank)]}, at::kByte), rank});
  }
  if (!transfers.empty()) world.transfer(transfers);
  std::vector<std::string> texts{mine};
  for (const PeerTransfer& transfer : transfers) texts.push_back(to_text(transfer.tensor));
  return texts;
}

}  // namespace mds::trainer
