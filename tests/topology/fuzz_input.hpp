// One input for a reader of topology, and all that happens to what it gives: shared by the libFuzzer harness and the
// mutation test that every test run has.
#pragma once

#include <string_view>

namespace mds::topology::tests {

enum class FuzzReader { nccl_xml, hwloc_xml, nvidia_smi, fabric, cluster_json, guess };
inline constexpr int kFuzzReaders = 6;

/// Reads `text`; on success finds paths, examines, writes in every format and reads again. Aborts, with a word on
/// stderr, where something that always holds does not. True if the text was read.
bool try_input(FuzzReader reader, std::string_view text);

}  // namespace mds::topology::tests
