/* Open MPI's all-reduce of float32 in place: BYTES WARMUP CALLS. Rank 0 prints the slowest rank's times as JSON. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  int rank, ranks, base = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  long n = atol(argv[1]) / (long)sizeof(float);
  int warmup = atoi(argv[2]), calls = atoi(argv[3]);
  float *data = malloc(n * sizeof(float) + 1);
  double *seconds = calloc(warmup + calls, sizeof(double)), *slowest = calloc(warmup + calls, sizeof(double));
  for (int r = 0; r < ranks; r++) base += r % 4;
  for (int c = 0; c < warmup + calls; c++) {
    for (long i = 0; i < n; i++) data[i] = (float)(rank % 4 + i % 4);
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    MPI_Allreduce(MPI_IN_PLACE, data, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    seconds[c] = MPI_Wtime() - start;
    for (long i = 0; i < n; i++)
      if (data[i] != (float)(base + ranks * (i % 4))) {
        fprintf(stderr, "the sum is wrong\n");
        MPI_Abort(MPI_COMM_WORLD, 1);
      }
  }
  MPI_Reduce(seconds, slowest, warmup + calls, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  if (rank == 0) {
    printf("{\"Seconds\":[");
    for (int c = warmup; c < warmup + calls; c++) printf("%s%.9f", c > warmup ? "," : "", slowest[c]);
    printf("],\"Checked\":%d}\n", calls);
  }
  MPI_Finalize();
  return 0;
}
