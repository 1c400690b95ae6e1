// Connects the CPU groups of one rank over TCP.
//
// Every rank opens one listener, the addresses travel through RankControl::exchange, and within each group the rank of
// the higher number connects to the lower. Each connection proves by HMAC-SHA256 over fresh nonces that both ends know
// the attempt's secret, which rank 0 makes and which travels through the (encrypted) control channel only:
//
//   connector -> acceptor  hello  magic | SHA-256(group) | from | to | nonce
//   acceptor -> connector  reply  nonce | HMAC(secret, "accept"  | hello | nonce)
//   connector -> acceptor  proof          HMAC(secret, "connect" | hello | nonce)
//
// Nothing else is read from a connection before its proof. Strangers (a port scanner) are dropped and cost nothing but
// their socket.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "agent/rank_control.hpp"
#include "topology/result.hpp"
#include "trainer/comm/socket_mesh.hpp"

namespace mds::trainer {

/// One group that this rank belongs to.
struct GroupMembers {
  std::string name;          ///< the same on all members and unlike any other group's, e.g. "tensor:0,1"
  std::vector<int> ranks;    ///< world ranks in group order
};

struct ConnectOptions {
  std::string host = "127.0.0.1";                    ///< the address to listen on, which peers can reach
  std::chrono::milliseconds timeout{60'000};
};

/// Collective over the world. For each group the sockets by group rank (this rank's own place is empty).
/// Errors: unavailable (a peer did not come; named), denied (a peer does not know the secret), bad_input (host).
Result<std::vector<std::vector<Fd>>> connect_groups(const std::vector<GroupMembers>& groups, int rank, int world_size,
                                                    agent::RankControl& control, const ConnectOptions& options);

}  // namespace mds::trainer
