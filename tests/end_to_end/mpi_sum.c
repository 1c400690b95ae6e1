/* An MPI program as MPI programs are: every rank adds its number plus one to a sum that all of them get, and the processes
 * of its node are counted. Rank 0 prints what came out. With a number as argument, the rank of that number dies in the
 * middle of the first attempt; with "abort", the last rank calls MPI_Abort. */
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char** argv) {
  int rank, size, beside, one, sum = 0;
  MPI_Comm node;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &beside);
  one = rank + 1;
  MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  if (argc > 1 && strcmp(argv[1], "abort") == 0) {
    if (rank == size - 1) MPI_Abort(MPI_COMM_WORLD, 7);
  } else if (argc > 1 && rank == atoi(argv[1]) && strcmp(getenv("TORCHELASTIC_RESTART_COUNT"), "0") == 0) {
    raise(SIGKILL);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank == 0) printf("sum %d of %d ranks, %d on this node\n", sum, size, beside);
  MPI_Finalize();
  return 0;
}
