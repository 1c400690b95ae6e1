// libFuzzer harness: whatever bytes come, the decoder gives messages or one error, and what it gives can be sent again.
#include <algorithm>
#include <cstdlib>

#include "agent/frame.hpp"

using namespace mds::agent;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FrameDecoder decoder(0, 1u << 16);
  for (size_t at = 0; at < size;) {
    const size_t piece = std::min<size_t>(size - at, 1 + data[at] % 64);
    decoder.feed({data + at, piece});
    at += piece;
    while (true) {
      auto message = decoder.next();
      if (!message) return 0;
      if (!*message) break;
      std::string frame;
      if (!encode_frame(**message, 1u << 20, frame).ok()) std::abort();
      if ((*message)->body.dump().empty()) std::abort();
    }
  }
  is_well_formed_body({data, size});
  return 0;
}
