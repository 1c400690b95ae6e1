// libFuzzer: no input may crash or hang a reader of topology, or take more than 1 GiB; what is read survives all that
// is done to machines. The first byte picks the reader ('0' to '5', as in FuzzReader), the rest is the text. Built with
// clang and -DMDS_FUZZ=ON:  readers_fuzz -max_len=65536 -malloc_limit_mb=1024 NEW_CORPUS tests/topology/fuzz_corpus
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/topology/fuzz_input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mds::topology::tests;
  if (size == 0) return 0;
  try_input(static_cast<FuzzReader>(data[0] % kFuzzReaders), {reinterpret_cast<const char*>(data) + 1, size - 1});
  return 0;
}
