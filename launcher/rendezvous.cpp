#include "launcher/rendezvous.hpp"

namespace mds::launcher {

Result<std::optional<Exchange>> Rendezvous::put(Contribution c) {
  const auto broken = [&](const std::string& why) {
    return bad_input("exchange '" + c.name.substr(0, kNameBytesMax) + "', rank " + std::to_string(c.rank) + ": " + why);
  };
  if (c.name.empty() || c.name.size() > kNameBytesMax) return broken("a name has 1 to 256 bytes");
  if (c.rank < 0 || c.rank >= world_size_) return broken("there is no such rank");
  if (c.count < 1 || c.count > world_size_) return broken("count must be 1 to the number of ranks");
  if (c.index < 0 || c.index >= c.count) return broken("index " + std::to_string(c.index) + " is out of range");
  if (c.value.size() > kValueBytesMax) return broken("a value has at most 1 MiB");
  if (completed_.count(c.name)) return broken("the name was used before in this attempt");
  if (held_bytes_ + c.value.size() > kHeldBytesMax) return broken("too many values wait for their peers");

  if (!pending_.count(c.name) && pending_.size() + completed_.size() >= kNamesMax) return broken("too many names");
  Pending& pending = pending_[c.name];
  if (pending.by_index.empty()) pending.by_index.resize(c.count);
  if (static_cast<int>(pending.by_index.size()) != c.count) {
    return broken("count " + std::to_string(c.count) + " where others said " + std::to_string(pending.by_index.size()));
  }
  if (pending.by_index[c.index]) {
    return broken("index " + std::to_string(c.index) + " was given by rank " +
                  std::to_string(pending.by_index[c.index]->rank));
  }
  held_bytes_ += c.value.size();
  const std::string name = c.name;
  pending.by_index[c.index] = std::move(c);
  if (++pending.present < static_cast<int>(pending.by_index.size())) return std::optional<Exchange>{};

  Exchange exchange{name, {}, {}};
  for (std::optional<Contribution>& part : pending.by_index) {
    held_bytes_ -= part->value.size();
    exchange.ranks.push_back(part->rank);
    exchange.values.push_back(std::move(part->value));
  }
  pending_.erase(name);
  completed_.insert(name);
  return std::optional<Exchange>{std::move(exchange)};
}

void Rendezvous::reset() {
  pending_.clear();
  completed_.clear();
  held_bytes_ = 0;
}

std::vector<std::string> Rendezvous::waiting() const {
  std::vector<std::string> lines;
  for (const auto& [name, pending] : pending_) {
    std::string ranks;
    for (const auto& part : pending.by_index) {
      if (part) ranks += (ranks.empty() ? "" : ", ") + std::to_string(part->rank);
    }
    lines.push_back(name + ": ranks " + ranks + " of " + std::to_string(pending.by_index.size()) + " are there");
  }
  return lines;
}

}  // namespace mds::launcher
