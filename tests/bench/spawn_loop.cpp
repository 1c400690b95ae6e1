// The floor that start-up times are measured against: N processes of a program, one posix_spawn after the other, then
// one wait after the other.
//
//   mds_spawn_loop N PROGRAM [ARGUMENT...]
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  const int count = argc > 2 ? std::atoi(argv[1]) : 0;
  if (count < 1) return std::fputs("usage: mds_spawn_loop N PROGRAM [ARGUMENT...]\n", stderr), 2;
  for (int i = 0; i < count; ++i) {
    pid_t pid = 0;
    if (posix_spawnp(&pid, argv[2], nullptr, nullptr, argv + 2, environ) != 0) return std::perror(argv[2]), 1;
  }
  int failed = 0;
  for (int i = 0; i < count; ++i) {
    int status = 0;
    if (wait(&status) < 0 || status != 0) ++failed;
  }
  return failed > 0;
}
