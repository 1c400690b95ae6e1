// Dataset: the samples of a run, in an order that depends only on the files, the seed and the number of samples.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "topology/result.hpp"
#include "trainer/config.hpp"

namespace mds::trainer {

enum class Split { train, validation, test };

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;                       ///< samples
  /// Writes seq_len + 1 token ids: inputs are [0, seq_len), labels [1, seq_len]. Requires 0 <= index < size().
  /// Thread-safe. Errors: corrupt.
  virtual Status sample(int64_t index, int64_t* tokens) const = 0;
};

struct DatasetSizes {
  int64_t train = 0, validation = 0, test = 0;            ///< samples that the run will draw of each split
};

/// Opens the files (mmap) and builds the order of samples. Rank-independent. A split of which no samples are wanted is
/// empty and opens nothing. Errors: bad_input with file and remedy, corrupt.
Result<std::unique_ptr<Dataset>> open_dataset(const DataConfig& data, int64_t seq_len, int64_t vocab_size, Split split,
                                              const DatasetSizes& sizes);

}  // namespace mds::trainer
