// Signals held: while it lives, signals that ask for an end wait, and are forgotten when it goes.
#pragma once

#include <signal.h>

#include <array>

namespace mds::launcher {

/// For the end of a run, when all that they could ask for is being done already: a second Ctrl-C must not leave half of
/// it behind. SIGKILL remains. Threads: the calling one must be the only one.
class SignalsHeld {
 public:
  SignalsHeld();
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;
  ~SignalsHeld();

 private:
  static constexpr std::array kHeld{SIGINT, SIGTERM, SIGHUP, SIGUSR1};
  sigset_t before_;
};

}  // namespace mds::launcher
