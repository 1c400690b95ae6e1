#include <array>
#include <cmath>
#include <utility>

#include "trainer/data/blend.hpp"
#include "trainer/data/byte_corpus.hpp"
#include "trainer/data/dataset.hpp"
#include "trainer/data/indexed_dataset.hpp"
#include "trainer/data/sample_order.hpp"

namespace mds::trainer {
namespace {

constexpr int64_t kByteVocabulary = 256;
constexpr std::array kSplitNames{"train", "validation", "test"};

/// Samples cut from documents in Megatron's order.
class GptDataset final : public Dataset {
 public:
  GptDataset(std::unique_ptr<TokenSource> source, SampleOrder order, int64_t seq_len, int64_t vocab_size)
      : source_(std::move(source)), order_(std::move(order)), seq_len_(seq_len), vocab_size_(vocab_size) {}

  int64_t size() const override { return order_.size(); }

  Status sample(int64_t index, int64_t* tokens) const override {
    order_.read(*source_, index, tokens);
    for (int64_t i = 0; i <= seq_len_; ++i) {
      if (tokens[i] >= 0 && tokens[i] < vocab_size_) continue;
      return corrupt(source_->path() + ": sample " + std::to_string(index) + " has token " + std::to_string(tokens[i]) +
                     ", outside of the vocabulary of " + std::to_string(vocab_size_) +
                     "; set model.vocab_size to the tokenizer's");
    }
    return {};
  }

 private:
  std::unique_ptr<TokenSource> source_;
  SampleOrder order_;
  int64_t seq_len_;
  int64_t vocab_size_;
};

/// Tokens from a counter-based generator: every token is a hash of (seed, split, sample, position).
class RandomDataset final : public Dataset {
 public:
  RandomDataset(uint64_t seed, Split split, int64_t size, int64_t seq_len, int64_t vocab_size)
      : stream_(mix(seed * 4 + static_cast<uint64_t>(split))),
        size_(size),
        seq_len_(seq_len),
        vocab_size_(static_cast<uint64_t>(vocab_size)) {}

  int64_t size() const override { return size_; }

  Status sample(int64_t index, int64_t* tokens) const override {
    const uint64_t sample = mix(stream_ ^ static_cast<uint64_t>(index));
    for (int64_t i = 0; i <= seq_len_; ++i) {
      // The high 32 bits scaled to the vocabulary, which has fewer: no visible bias.
      tokens[i] = static_cast<int64_t>((mix(sample + static_cast<uint64_t>(i)) >> 32) * vocab_size_ >> 32);
    }
    return {};
  }

 private:
  /// SplitMix64's finisher (Steele, Lea and Flood 2014).
  static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  }

  uint64_t stream_;
  int64_t size_, seq_len_;
  uint64_t vocab_size_;
};

class EmptyDataset final : public Dataset {
 public:
  int64_t size() const override { return 0; }
  Status sample(int64_t, int64_t*) const override { return internal("an empty data set has no samples"); }
};

struct Request {
  const DataConfig& data;
  int64_t seq_len, vocab_size;
  Split split;
};

/// A source and the documents of it that belong to the split.
struct OpenSource {
  std::unique_ptr<TokenSource> source;
  int64_t first = 0, last = 0;
};

Result<OpenSource> open_source(const std::string& path, const Request& request) {
  const auto opened = [](auto result) -> Result<OpenSource> {
    if (!result) return result.error();
    return OpenSource{*std::move(result)};
  };
  const DataConfig& data = request.data;
  Result<OpenSource> open = data.format == DataFormat::text
                                ? opened(ByteCorpus::open_text(path, data.split, request.split))
                            : data.format == DataFormat::jsonl ? opened(ByteCorpus::open_jsonl(path))
                                                               : opened(IndexedDataset::open(path));
  if (!open) return open;
  const int64_t documents = open->source->document_count();
  if (data.format == DataFormat::text) {  // was split inside of each file
    open->last = documents;
  } else {
    const auto bounds = split_boundaries(data.split, documents);
    open->first = bounds[static_cast<size_t>(request.split)];
    open->last = bounds[static_cast<size_t>(request.split) + 1];
  }
  return open;
}

Result<std::unique_ptr<Dataset>> open_one(const std::string& path, const Request& request, int64_t samples) {
  Result<OpenSource> open = open_source(path, request);
  if (!open) return open.error();
  if (open->first >= open->last) {
    const bool text = request.data.format == DataFormat::text;  // its documents are those of the split alone
    const std::string of_them = text ? "" : " of its " + std::to_string(open->source->document_count()) + " documents";
    return bad_input(path + ": data.split leaves nothing" + of_them + " for " +
                     kSplitNames[static_cast<size_t>(request.split)] +
                     "; give it a larger share or more data");
  }
  Result<SampleOrder> order = SampleOrder::make(*open->source, open->first, open->last, samples, request.seq_len,
                                                static_cast<uint32_t>(request.data.seed));
  if (!order) {
    return order.error().within(std::string(kSplitNames[static_cast<size_t>(request.split)]) + " data");
  }
  return std::unique_ptr<Dataset>(
      std::make_unique<GptDataset>(std::move(open->source), *std::move(order), request.seq_len, request.vocab_size));
}

Result<std::unique_ptr<Dataset>> open_blend(const Request& request, int64_t samples) {
  double sum = 0;
  for (const DataSource& source : request.data.sources) sum += source.weight;
  std::vector<double> weights;
  for (const DataSource& source : request.data.sources) weights.push_back(source.weight / sum);

  const std::vector<int64_t> sizes = blend_sizes(weights, samples);
  std::vector<std::unique_ptr<Dataset>> parts;
  int64_t size = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    Result<std::unique_ptr<Dataset>> part = open_one(request.data.sources[i].path, request, sizes[i]);
    if (!part) return part;
    parts.push_back(*std::move(part));
    size += sizes[i];
  }
  return std::unique_ptr<Dataset>(std::make_unique<Blend>(std::move(parts), std::move(weights), size));
}

}  // namespace

std::array<int64_t, 4> split_boundaries(const std::vector<double>& shares, int64_t size) {
  double sum = 0;
  for (const double share : shares) sum += share;
  std::array<int64_t, 4> bounds{};
  for (size_t i = 0; i < 3; ++i) {
    const double share = i < shares.size() ? shares[i] / sum : 0.0;
    // Python's round(): halves go to the even neighbour, as nearbyint does.
    bounds[i + 1] = bounds[i] + static_cast<int64_t>(std::nearbyint(share * static_cast<double>(size)));
  }
  // What rounding put in excess or left over is taken from the first part. Megatron, too, but there it may go below 0.
  const int64_t excess = bounds[3] - size;
  for (size_t i = 1; i < 4; ++i) bounds[i] = std::max<int64_t>(0, bounds[i] - excess);
  return bounds;
}

Result<std::unique_ptr<Dataset>> open_dataset(const DataConfig& data, int64_t seq_len, int64_t vocab_size, Split split,
                                              const DatasetSizes& sizes) {
  const std::array<int64_t, 3> samples_of{sizes.train, sizes.validation, sizes.test};
  const int64_t samples = samples_of[static_cast<size_t>(split)];
  if (seq_len < 1 || samples < 0) return bad_input("a data set needs training.seq_len of at least 1");
  if (vocab_size < 1 || vocab_size > int64_t{0xffffffff}) return bad_input("model.vocab_size must be 1 to 4294967295");
  if (samples == 0) return std::unique_ptr<Dataset>(std::make_unique<EmptyDataset>());
  if (data.format == DataFormat::random) {
    return std::unique_ptr<Dataset>(std::make_unique<RandomDataset>(data.seed, split, samples, seq_len, vocab_size));
  }
  if (data.format != DataFormat::megatron && vocab_size < kByteVocabulary) {
    return bad_input("byte tokens need model.vocab_size of at least 256, not " + std::to_string(vocab_size));
  }
  if (data.seed > 0xffffffff) return bad_input("data.seed must be below 2^32, not " + std::to_string(data.seed));
  if (data.sources.empty()) return bad_input("data.path is missing");
  const Request request{data, seq_len, vocab_size, split};
  if (data.sources.size() == 1) return open_one(data.sources[0].path, request, samples);
  return open_blend(request, samples);
}

}  // namespace mds::trainer
