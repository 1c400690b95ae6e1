// libFuzzer: see messages_fuzz_input.hpp.
#include "tests/launcher/run/messages_fuzz_input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mds::launcher::tests::try_message({reinterpret_cast<const char*>(data), size});
  return 0;
}
