// Prints the samples of a data set, one line each, for comparison with other programs' order.
//   dump_samples SPLIT SEQ_LEN SEED TRAIN,VALIDATION,TEST TRAIN VALIDATION TEST (WEIGHT PREFIX)...
// where the first list has the shares of the split and the three numbers are the samples wanted of each. The number of
// samples that the data set offers comes first.
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "trainer/data/dataset.hpp"

using namespace mds::trainer;

namespace {

int fail(const std::string& message) {
  std::fprintf(stderr, "dump_samples: %s\n", message.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < 9 || arguments.size() % 2 == 0) return fail("see the head of dump_samples.cpp");
  const Split split = arguments[0] == "train"   ? Split::train
                      : arguments[0] == "valid" ? Split::validation
                                                : Split::test;
  const int64_t seq_len = std::stoll(arguments[1]);
  DataConfig data;
  data.format = DataFormat::megatron;
  data.seed = std::stoull(arguments[2]);
  data.split.clear();
  std::istringstream shares(arguments[3]);
  for (std::string share; std::getline(shares, share, ',');) data.split.push_back(std::stod(share));
  const DatasetSizes sizes{std::stoll(arguments[4]), std::stoll(arguments[5]), std::stoll(arguments[6])};
  for (size_t i = 7; i < arguments.size(); i += 2) data.sources.push_back({arguments[i + 1], std::stod(arguments[i])});

  const auto set = open_dataset(data, seq_len, 65536, split, sizes);
  if (!set) return fail(set.error().message);
  std::printf("%lld\n", static_cast<long long>((*set)->size()));
  std::vector<int64_t> tokens(static_cast<size_t>(seq_len) + 1);
  for (int64_t i = 0; i < (*set)->size(); ++i) {
    if (const mds::Status status = (*set)->sample(i, tokens.data()); !status) return fail(status.error().message);
    for (const int64_t token : tokens) std::printf("%lld ", static_cast<long long>(token));
    std::printf("\n");
  }
}
