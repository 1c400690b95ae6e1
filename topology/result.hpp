// Result<T>: the one way that this project reports errors.
//
// An Error says what the caller should do (code), what happened (message) and where (context, outermost first).
// Functions that can fail return Result<T> or Status; exceptions are caught at LibTorch's edge only.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace mds {

/// What the caller is expected to do about an error.
enum class ErrorCode {
  bad_input,    ///< The user's input is wrong; trying again is useless (exit code 2).
  infeasible,   ///< The input is right but cannot be placed or does not fit (exit code 3).
  unavailable,  ///< A resource or peer is not there now; the same call may succeed later.
  corrupt,      ///< Data failed a check (checksum, truncated file); another copy may be good.
  denied,       ///< Authentication or permission failed.
  internal,     ///< A defect of this program or an unexpected system error.
};

/// Short stable name of a code, e.g. "bad_input".
const char* to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;

  /// The same error with "what: " put in front of the message.
  Error within(const std::string& what) const { return Error{code, what + ": " + message}; }
};

/// A value of type T or an Error. Check with `if (!r)`; `*r` and `r->` require a value.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }

  /// Requires !ok().
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

/// Success or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }

  /// Requires !ok().
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

inline Error bad_input(std::string message) { return {ErrorCode::bad_input, std::move(message)}; }
inline Error infeasible(std::string message) { return {ErrorCode::infeasible, std::move(message)}; }
inline Error unavailable(std::string message) { return {ErrorCode::unavailable, std::move(message)}; }
inline Error corrupt(std::string message) { return {ErrorCode::corrupt, std::move(message)}; }
inline Error internal(std::string message) { return {ErrorCode::internal, std::move(message)}; }
/// "what: strerror(errnum)" as an internal error.
Error system_error(const std::string& what, int errnum);

}  // namespace mds
