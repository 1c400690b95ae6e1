#include "agent/frame.hpp"

#include <array>
#include <utility>

#include "agent/utf8.hpp"

namespace mds::agent {
namespace {

constexpr uint32_t kMagic = 0x4653444d;  // "MDSF" in memory

template <typename T>
void put(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
}

template <typename T>
T get(const char* from) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(from[i])) << (8 * i);
  return static_cast<T>(value);
}

// Walks over one body without recursion: `open` holds, for every container around the cursor, how many items it lacks.
class BodyWalk {
 public:
  explicit BodyWalk(std::span<const uint8_t> body) : at_(body.data()), end_(body.data() + body.size()) {}

  bool run() {
    if (at_ == end_ || *at_ >> 5 != kMap) return false;
    if (!item()) return false;
    while (depth_ > 0) {
      Container& top = open_[depth_ - 1];
      if (top.missing == 0) {
        --depth_;
        continue;
      }
      const bool key = top.is_map && top.missing % 2 == 0;
      --top.missing;
      if (key && (at_ == end_ || *at_ >> 5 != kText)) return false;  // a JSON key is a text
      if (!item()) return false;
    }
    return at_ == end_;
  }

 private:
  struct Container {
    uint64_t missing = 0;  // items; a map's entry is two
    bool is_map = false;
  };
  enum Major : uint8_t { kUnsigned, kNegative, kBytes, kText, kArray, kMap, kTag, kSimple };

  bool item() {
    if (at_ == end_ || ++items_ > kFrameItemsMax) return false;
    const uint8_t initial = *at_++;
    const auto major = static_cast<Major>(initial >> 5);
    const int info = initial & 0x1f;
    if (major == kSimple) return simple(info);
    uint64_t argument = 0;
    if (!read_argument(info, argument)) return false;
    switch (major) {
      case kUnsigned: return true;
      case kNegative: return argument <= static_cast<uint64_t>(INT64_MAX);
      case kBytes:
      case kText: return string(argument, major == kText);
      case kArray: return enter(argument, false);
      case kMap: return argument <= kFrameItemsMax && enter(2 * argument, true);
      default: return false;  // tags: we never send one
    }
  }

  bool read_argument(int info, uint64_t& argument) {
    if (info < 24) {
      argument = static_cast<uint64_t>(info);
      return true;
    }
    if (info > 27) return false;  // reserved, or of indefinite length
    const ptrdiff_t size = ptrdiff_t{1} << (info - 24);
    if (end_ - at_ < size) return false;
    for (ptrdiff_t i = 0; i < size; ++i) argument = argument << 8 | at_[i];  // CBOR is big-endian
    at_ += size;
    return true;
  }

  bool simple(int info) {
    const ptrdiff_t size = info == 25 ? 2 : info == 26 ? 4 : info == 27 ? 8 : 0;  // half, float, double
    const bool known = size > 0 || info == 20 || info == 21 || info == 22;        // false, true, null
    if (!known || end_ - at_ < size) return false;
    at_ += size;
    return true;
  }

  bool string(uint64_t length, bool text) {
    if (length > static_cast<uint64_t>(end_ - at_)) return false;
    const auto* begin = reinterpret_cast<const char*>(std::exchange(at_, at_ + length));
    return !text || is_utf8({begin, length});
  }

  bool enter(uint64_t count, bool is_map) {
    // Every item takes a byte at least: a count beyond what is left is a lie, told before anything believes it.
    if (count > static_cast<uint64_t>(end_ - at_) || depth_ == kFrameDepthMax) return false;
    open_[depth_++] = {count, is_map};
    return true;
  }

  const uint8_t* at_;
  const uint8_t* end_;
  uint64_t items_ = 0;
  int depth_ = 0;
  std::array<Container, kFrameDepthMax> open_{};
};

const uint8_t* as_bytes(const std::string& text, size_t offset) {
  return reinterpret_cast<const uint8_t*>(text.data()) + offset;
}

}  // namespace

bool is_well_formed_body(std::span<const uint8_t> body) { return BodyWalk(body).run(); }

Status encode_frame(const Message& message, uint32_t body_bytes_max, std::string& out) {
  const size_t begin = out.size();
  put(out, kMagic);
  put(out, static_cast<uint16_t>(kProtocolVersion));
  put(out, static_cast<uint16_t>(message.type));
  put(out, uint32_t{0});  // length: known below
  put(out, message.attempt);
  put(out, message.job);
  put(out, message.sequence);
  const size_t body_at = out.size();
  nlohmann::json::to_cbor(message.body, out);
  const size_t length = out.size() - body_at;
  const bool fits = length <= body_bytes_max;
  if (!fits || !is_well_formed_body({as_bytes(out, body_at), length})) {
    out.resize(begin);
    const std::string what = std::string("message ") + to_string(message.type);
    if (fits) return bad_input(what + ": the body is no object of UTF-8 texts nested at most 32 deep");
    return bad_input(what + ": the body has " + std::to_string(length) + " bytes, at most " +
                     std::to_string(body_bytes_max) + " are allowed");
  }
  for (int i = 0; i < 4; ++i) out[begin + 8 + i] = static_cast<char>(length >> (8 * i));
  return {};
}

std::optional<nlohmann::json> decode_body(std::span<const uint8_t> body) {
  if (!is_well_formed_body(body)) return std::nullopt;
  auto decoded = nlohmann::json::from_cbor(body, true, /*allow_exceptions=*/false);
  if (decoded.is_discarded()) return std::nullopt;
  return decoded;
}

void FrameDecoder::feed(std::span<const uint8_t> bytes) {
  if (error_) return;
  // Consumed bytes go when they are the greater part: every byte is moved about once.
  if (offset_ > buffer_.size() / 2) {
    buffer_.erase(0, offset_);
    offset_ = 0;
  }
  buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<std::optional<Message>> FrameDecoder::fail(const std::string& what) {
  error_ = corrupt("frame " + std::to_string(sequence_ + 1) + ": " + what);
  buffer_.clear();
  buffer_.shrink_to_fit();
  offset_ = 0;
  return *error_;
}

Result<std::optional<Message>> FrameDecoder::next() {
  if (error_) return *error_;
  if (buffered_bytes() < kFrameHeaderBytes) return std::optional<Message>{};
  const char* header = buffer_.data() + offset_;
  if (get<uint32_t>(header) != kMagic) return fail("bad magic");
  const auto version = get<uint16_t>(header + 4);
  if (version != kProtocolVersion) {
    return fail("protocol version " + std::to_string(version) + ", this program speaks " +
                std::to_string(kProtocolVersion));
  }
  Message message;
  message.type = static_cast<MessageType>(get<uint16_t>(header + 6));
  if (!is_known(message.type)) return fail("unknown type " + std::to_string(static_cast<int>(message.type)));
  const auto length = get<uint32_t>(header + 8);
  if (length > body_bytes_max_) return fail("length " + std::to_string(length) + " is beyond the limit");
  message.attempt = get<uint32_t>(header + 12);
  message.job = get<uint64_t>(header + 16);
  if (message.job != job_) return fail("of another job");
  message.sequence = get<uint64_t>(header + 24);
  if (message.sequence != sequence_ + 1) return fail("sequence " + std::to_string(message.sequence));
  if (buffered_bytes() < kFrameHeaderBytes + length) return std::optional<Message>{};

  const std::span<const uint8_t> body(as_bytes(buffer_, offset_ + kFrameHeaderBytes), length);
  if (!is_well_formed_body(body)) return fail("malformed body");
  message.body = nlohmann::json::from_cbor(body.begin(), body.end(), /*strict=*/true, /*allow_exceptions=*/false);
  if (!message.body.is_object()) return fail("malformed body");
  sequence_ = message.sequence;
  offset_ += kFrameHeaderBytes + length;
  if (offset_ == buffer_.size()) {
    buffer_.clear();
    offset_ = 0;
  }
  return std::optional<Message>(std::move(message));
}

}  // namespace mds::agent
