// A job file between parsing and Job: the values so far, where each was written, and every problem found.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "launcher/job_document.hpp"
#include "launcher/surroundings.hpp"

namespace mds::launcher {

struct JobDraft {
  Job job;
  Surroundings surroundings;
  bool given_by_allocation = false;                    ///< job.gpus_per_node is what the Slurm job has
  std::string file;                                    ///< as given, for messages
  std::map<std::string, const DocumentMember*> given;  ///< by "section.key"; not those that say "auto"
  std::map<std::string, Place> sections;               ///< those that are in the file
  std::set<std::string> open;                          ///< keys that say "auto" where that is not the default
  std::set<std::string> bad;                           ///< keys whose value is not to be relied on
  std::vector<JobProblem> problems;

  bool is_open(const std::string& path) const { return open.count(path) != 0; }
  bool has(const std::string& path) const { return given.count(path) != 0; }
  bool is_bad(const std::string& path) const { return bad.count(path) != 0; }
  bool any_bad(const std::vector<std::string>& paths) const;
  int spare_nodes() const { return is_bad("restart.spare_nodes") ? 0 : job.restart.spare_nodes; }
  /// True if `path` came with --set, so that relative paths in it are relative to the working folder.
  bool from_set(const std::string& path) const;
  /// `written`, the value of `path`, as an absolute path: relative ones start at the job file's folder, or with --set
  /// at the working folder.
  std::filesystem::path located(const std::string& path, const std::string& written) const;

  void report(Place place, const std::string& message);
  /// Reports at the key, or at its section's head if the key is not in the file; marks the key as bad.
  void report(const std::string& path, const std::string& message);
  /// Reports, once for the section, those of `names` that a training job must have and that are not there.
  void report_missing(const std::string& section, const std::vector<std::string>& names, const std::string& remedy);
  /// Remembers what "auto" came to, for `plan --explain`.
  void note(const std::string& sentence) { job.notes.push_back(sentence); }
};

/// Fills what is "auto", checks across fields and against the file system. Keys that are bad are left alone, so that
/// one mistake gives one problem.
void resolve(JobDraft& draft);

/// The parts of resolve(), in its order.
void resolve_hosts(JobDraft& draft);  ///< back end, hosts, nodes
void resolve_ranks(JobDraft& draft);  ///< all of that, devices, the rank grid
void resolve_container(JobDraft& draft);
void resolve_stage(JobDraft& draft);
void resolve_payload(JobDraft& draft);
void resolve_model(JobDraft& draft);
void resolve_training(JobDraft& draft);

/// Starts the model from a preset; before any other key is stored.
void apply_preset(JobDraft& draft, const std::string& name);
/// Fills what trainer::check() must see as the file left it.
void finish_shape(JobDraft& draft);

/// Host names of a DeepSpeed hostfile and the slots that all its lines agree on (0: none given). Errors: bad_input.
struct Hostfile {
  std::vector<std::string> hosts;
  int slots = 0;
};
Result<Hostfile> parse_hostfile(const std::string& text);

}  // namespace mds::launcher
