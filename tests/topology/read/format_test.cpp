// What a recording is shows in its content, never in its name.
#include <random>

#include "topology/read/read_machine.hpp"

#include "tests/topology/recordings.hpp"
#include "tests/catch.hpp"

using namespace mds::topology;

TEST_CASE("formats are guessed from content") {
  using enum RecordingFormat;
  CHECK(guess_format("") == unknown);
  CHECK(guess_format("hello world\n") == unknown);
  CHECK(guess_format("<html><body/></html>") == unknown);
  CHECK(guess_format("<") == unknown);
  CHECK(guess_format("<!-- never ends") == unknown);
  CHECK(guess_format("<system version=\"1\">") == nccl_xml);
  CHECK(guess_format("\xef\xbb\xbf\n<!-- <topology> --><system>") == nccl_xml);
  CHECK(guess_format("<?xml version=\"1.0\"?>\n<!DOCTYPE topology SYSTEM \"hwloc.dtd\">\n<topology>") == hwloc_xml);
  CHECK(guess_format("<topology version=\"3.0\">") == hwloc_xml);
  CHECK(guess_format("{\"version\": 1}") == cluster_json);
  CHECK(guess_format("\tGPU0\tCPU Affinity\nGPU0\t X \t0-7\n") == nvidia_smi);
  CHECK(guess_format("$ nvidia-smi topo -m\n        GPU0    GPU1\nGPU0     X      NV4\n") == nvidia_smi);
  CHECK(guess_format("SwitchName=s0 Nodes=n[0-3]\n") == fabric);
}

TEST_CASE("all recordings are recognised, also under other names and with blanks before them") {
  const std::pair<const char*, RecordingFormat> kinds[] = {
      {"nccl", RecordingFormat::nccl_xml}, {"hwloc", RecordingFormat::hwloc_xml}, {"fabric", RecordingFormat::fabric}};
  for (const auto& [folder, format] : kinds) {
    for (const auto& file : tests::recordings(folder)) {
      INFO(file);
      const std::string text = tests::read_text(file);
      CHECK(guess_format(text) == format);
      if (format != RecordingFormat::fabric) CHECK(guess_format("\n \n" + text) == format);
    }
  }
}

TEST_CASE("any text is some format or none, and quickly") {
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 300; ++round) {
    std::string text(random() % 3000, ' ');
    const std::string alphabet = "<>!?-{}GPU0NV18 \t\n\x1b[4m:=";
    for (char& c : text) c = alphabet[random() % alphabet.size()];
    guess_format(text);
  }
  guess_format(std::string(1 << 20, '<'));
  guess_format(std::string(1 << 20, '\n'));
}
