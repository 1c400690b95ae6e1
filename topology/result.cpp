#include "topology/result.hpp"

#include <system_error>

namespace mds {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::bad_input:
      return "bad_input";
    case ErrorCode::infeasible:
      return "infeasible";
    case ErrorCode::unavailable:
      return "unavailable";
    case ErrorCode::corrupt:
      return "corrupt";
    case ErrorCode::denied:
      return "denied";
    case ErrorCode::internal:
      return "internal";
  }
  return "unknown";
}

Error system_error(const std::string& what, int errnum) {
  // std::generic_category is thread-safe; strerror is not.
  return internal(what + ": " + std::generic_category().message(errnum));
}

}  // namespace mds
