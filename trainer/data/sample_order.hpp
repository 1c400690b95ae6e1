// SampleOrder: which tokens make sample i, in the order of Megatron-LM's GPTDataset (megatron/data/gpt_dataset.py).
//
// Each epoch's documents are shuffled and laid end to end; sample k of that line is its tokens
// [k x seq_len, (k + 1) x seq_len], both ends included, so that neighbours share one token; then the samples are
// shuffled. When the last epoch is needed for less than 80 % of its samples, it is kept apart from the others in both
// shuffles. Megatron stores for each sample the document and offset where it starts; a sum of document lengths says the
// same.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "topology/result.hpp"
#include "trainer/data/dataset.hpp"
#include "trainer/data/token_source.hpp"

namespace mds::trainer {

class SampleOrder {
 public:
  /// Documents [first, last) of `source`, in at least as many epochs as `samples` take. Errors: bad_input when there
  /// are too few tokens to make a sample, or absurdly many epochs.
  static Result<SampleOrder> make(const TokenSource& source, int64_t first, int64_t last, int64_t samples,
                                  int64_t seq_len, uint32_t seed);

  int64_t size() const { return static_cast<int64_t>(shuffled_.size()); }  ///< of whole epochs: at least `samples`
  /// Writes the seq_len + 1 tokens of sample `index`. `source` is the one given to make().
  void read(const TokenSource& source, int64_t index, int64_t* tokens) const;

 private:
  int64_t seq_len_ = 0;
  std::vector<int32_t> documents_;  // of all epochs, shuffled
  std::vector<int64_t> begins_;     // first token of each of documents_ on the line
  std::vector<int64_t> shuffled_;   // sample -> its number on the line
};

}  // namespace mds::trainer
