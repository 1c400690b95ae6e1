// From a job file to a Job, or to every problem at once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launcher/job.hpp"
#include "launcher/surroundings.hpp"

namespace mds::launcher {

/// One problem of a job file. Printed as "file:line:column: message", compiler style.
struct JobProblem {
  std::string file;  ///< path as given, or "--set"
  int line = 0;      ///< 1-based, 0 unknown
  int column = 0;
  std::string message;      ///< what is wrong and the remedy
  bool infeasible = false;  ///< the file is right but the job cannot be (exit code 3 if all problems are such)
};

struct JobFileResult {
  std::optional<Job> job;  ///< present exactly when problems is empty
  std::vector<JobProblem> problems;
};

/// Reads, parses and validates; `overrides` are "section.key=value" (value in TOML; bare words are strings). Relative
/// paths in the file are relative to the file's folder for data, to the working folder for output_dir.
JobFileResult load_job(const std::string& path, const std::vector<std::string>& overrides,
                       const Surroundings& surroundings = {});

/// The same on a text already in memory; `file` is used in messages.
JobFileResult parse_job(const std::string& text, const std::string& file, const std::vector<std::string>& overrides,
                        const Surroundings& surroundings = {});

std::string format(const JobProblem& problem);

/// The reference of job.toml in Markdown, from the table that the parser uses.
std::string job_reference_markdown();

}  // namespace mds::launcher
