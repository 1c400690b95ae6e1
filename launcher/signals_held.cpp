#include "launcher/signals_held.hpp"

namespace mds::launcher {

SignalsHeld::SignalsHeld() {
  sigset_t held;
  sigemptyset(&held);
  for (const int signal : kHeld) sigaddset(&held, signal);
  sigprocmask(SIG_BLOCK, &held, &before_);
}

SignalsHeld::~SignalsHeld() {
  for (const int signal : kHeld) {
    struct sigaction before {}, ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(signal, &ignore, &before);  // drops one that waits
    sigaction(signal, &before, nullptr);
  }
  sigprocmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace mds::launcher
