// Job files for tests.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "launcher/job_file.hpp"

namespace mds::launcher::tests {

inline const std::string kSource = MDS_SOURCE_DIR;

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::vector<std::filesystem::path> files_in(const std::string& folder, const std::string& extension) {
  std::vector<std::filesystem::path> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == extension) out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

inline std::vector<std::filesystem::path> examples() { return files_in(kSource + "/docs/examples", ".toml"); }

/// Makes an example's data independent of what is installed on the machine.
inline std::vector<std::string> local_data(const std::string& text) {
  if (text.find("format = \"text\"") == std::string::npos) return {};
  return {"data.path=" + kSource + "/docs"};
}

/// A small job that trains, without problems.
inline std::string valid_text() {
  return "[job]\ndevices = \"cpu\"\nnodes = 2\nranks_per_node = 2\n"
         "[parallel]\ntensor = 2\n"
         "[model]\narchitecture = \"llama\"\nhidden_size = 64\nnum_layers = 2\nnum_attention_heads = 4\nvocab_size = "
         "256\n"
         "[data]\nformat = \"random\"\n"
         "[training]\nsteps = 10\nseq_len = 32\nglobal_batch_size = 8\n";
}

inline std::string all_problems(const JobFileResult& result) {
  std::string out;
  for (const JobProblem& problem : result.problems) out += format(problem) + "\n";
  return out;
}

}  // namespace mds::launcher::tests
