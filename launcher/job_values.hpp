// From a value as written to a checked KeyValue, and from numbers with units to numbers.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "launcher/job_document.hpp"
#include "launcher/job_schema.hpp"

namespace mds::launcher {

/// Checks type, choices, bounds and what this version can honour. Errors: bad_input, one message that begins with the
/// key's path and says what would be right.
Result<KeyValue> convert_value(const Key& key, const DocumentNode& node);

/// "80GiB", "1.5TB", "4096": bytes. Nothing if it does not read as a size below 2^63.
std::optional<int64_t> parse_size(const std::string& text);
/// "30s", "500ms", "1.5h". Nothing if it does not read as a duration of at most 300 years.
std::optional<std::chrono::milliseconds> parse_duration(const std::string& text);

/// The largest unit that gives a whole number: "80GiB", "500ms".
std::string format_size(int64_t bytes);
std::string format_duration(std::chrono::milliseconds duration);

/// The shortest text that reads back as the same number, and reads as a TOML float.
std::string format_number(double number);

}  // namespace mds::launcher
