// What "auto" comes to under [parallel] and for training.micro_batch_size, once the machines are known.
#pragma once

#include <string>
#include <vector>

#include "launcher/job.hpp"
#include "topology/cost/search.hpp"

namespace mds::launcher {

/// `job` with every key that was left open settled: the quickest layout, by the cost model, of those that fit and that
/// this version's trainer runs; on CPUs the one with the most replicas. Notes say what and why, and resolved_toml has
/// the values. Unchanged where nothing is open. Deterministic. Errors: infeasible, with the reason.
Result<Job> settle_layout(Job job, const topology::Cluster& cluster);

/// The best layouts of a settled job if all of [parallel] and the micro batch were free. `unreleased`: also what this
/// version cannot run yet (context parallel, interleaved).
topology::cost::SearchResult layout_candidates(const Job& job, const topology::Cluster& cluster, size_t keep,
                                               bool unreleased);
/// A table of them with what each spends its time on.
std::string candidates_text(const topology::cost::SearchResult& found, const topology::cost::Machines& machines);

}  // namespace mds::launcher
