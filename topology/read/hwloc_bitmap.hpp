// CPU and node sets as hwloc writes them: 32-bit hexadecimal words, the highest first, "0xf...f" for all above.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mds::topology::hwloc {

class Bitmap {
 public:
  static constexpr size_t kBitsMax = 1 << 20;

  /// "0x00000303,0x03030000,,0x03030303"; nothing where it is none, or beyond kBitsMax.
  static std::optional<Bitmap> parse(std::string_view text);
  std::string to_string() const;

  bool empty() const;          ///< no bit set
  bool has(size_t bit) const;
  void set(size_t bit);        ///< requires bit < kBitsMax
  void add(const Bitmap& other);
  /// Every bit of this one is in `other`.
  bool within(const Bitmap& other) const;
  bool meets(const Bitmap& other) const;
  /// Bits set; kBitsMax where all above some bit are.
  size_t count() const;
  /// The lowest bit set, kBitsMax where there is none.
  size_t first() const;
  bool operator==(const Bitmap&) const = default;

 private:
  uint32_t word(size_t i) const { return i < words_.size() ? words_[i] : above_ ? ~uint32_t{0} : 0; }
  void trim();
  std::vector<uint32_t> words_;  ///< lowest first, without words at the end that say the same as above_
  bool above_ = false;           ///< all bits above words_ are set
};

}  // namespace mds::topology::hwloc
