#include "topology/read/hwloc_bitmap.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdio>

namespace mds::topology::hwloc {

constexpr size_t kWordBits = 32;

std::optional<Bitmap> Bitmap::parse(std::string_view text) {
  Bitmap bitmap;
  if (text.starts_with("0xf...f")) {
    bitmap.above_ = true;
    text.remove_prefix(7);
    if (text.starts_with(",")) text.remove_prefix(1);
    if (text.empty()) return bitmap;
  }
  for (bool more = true; more;) {
    const size_t comma = text.find(',');
    std::string_view item = text.substr(0, comma);
    more = comma != std::string_view::npos;
    text.remove_prefix(more ? comma + 1 : text.size());
    if (item.starts_with("0x")) item.remove_prefix(2);
    uint32_t value = 0;
    const auto [end, failed] = std::from_chars(item.data(), item.data() + item.size(), value, 16);
    const bool whole = end == item.data() + item.size() && failed == std::errc();
    if ((!whole && !item.empty()) || bitmap.words_.size() >= kBitsMax / kWordBits) return std::nullopt;
    bitmap.words_.push_back(value);  // an empty word is zero
  }
  std::reverse(bitmap.words_.begin(), bitmap.words_.end());
  bitmap.trim();
  return bitmap;
}

std::string Bitmap::to_string() const {
  std::string text = above_ ? "0xf...f" : "";
  for (size_t i = words_.size(); i-- > 0;) {
    char word[16];
    std::snprintf(word, sizeof word, "%s0x%08x", text.empty() ? "" : ",", words_[i]);
    text += word;
  }
  return text.empty() ? "0x0" : text;
}

void Bitmap::trim() {
  while (!words_.empty() && words_.back() == (above_ ? ~uint32_t{0} : 0)) words_.pop_back();
}

bool Bitmap::empty() const { return words_.empty() && !above_; }

bool Bitmap::has(size_t bit) const { return word(bit / kWordBits) >> (bit % kWordBits) & 1; }

void Bitmap::set(size_t bit) {
  if (has(bit)) return;
  if (words_.size() <= bit / kWordBits) words_.resize(bit / kWordBits + 1, above_ ? ~uint32_t{0} : 0);
  words_[bit / kWordBits] |= uint32_t{1} << (bit % kWordBits);
  trim();
}

void Bitmap::add(const Bitmap& other) {
  words_.resize(std::max(words_.size(), other.words_.size()), above_ ? ~uint32_t{0} : 0);
  for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.word(i);
  above_ = above_ || other.above_;
  trim();
}

bool Bitmap::within(const Bitmap& other) const {
  if (above_ && !other.above_) return false;
  for (size_t i = 0; i < std::max(words_.size(), other.words_.size()); ++i) {
    if (word(i) & ~other.word(i)) return false;
  }
  return true;
}

bool Bitmap::meets(const Bitmap& other) const {
  if (above_ && other.above_) return true;
  for (size_t i = 0; i < std::max(words_.size(), other.words_.size()); ++i) {
    if (word(i) & other.word(i)) return true;
  }
  return false;
}

size_t Bitmap::count() const {
  if (above_) return kBitsMax;
  size_t bits = 0;
  for (const uint32_t word : words_) bits += static_cast<size_t>(std::popcount(word));
  return bits;
}

size_t Bitmap::first() const {
  for (size_t i = 0; i <= words_.size(); ++i) {
    if (word(i)) return i * kWordBits + static_cast<size_t>(std::countr_zero(word(i)));
  }
  return kBitsMax;
}

}  // namespace mds::topology::hwloc
