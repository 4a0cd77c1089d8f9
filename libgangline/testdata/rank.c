// A rank of the C test: `rank NUMBER WORLD DIRECTORY`. It prints the address of its listener, reads those of all ranks, one a line, and then checks what a
// C program sees of libgangline. It ends with 0 if all is well.

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gangline.h"

static int rank, world;

#define CHECK(condition)                                                                                              \
	do {                                                                                                              \
		if (!(condition)) {                                                                                           \
			fprintf(stderr, "rank %d: %s:%d: not so: %s; last error %d (rank %d): %s\n", rank, __FILE__, __LINE__, #condition, \
				gangline_last_error()->code, gangline_last_error()->rank, gangline_last_error()->text);                  \
			exit(1);                                                                                                  \
		}                                                                                                             \
	} while (0)

static volatile sig_atomic_t terminated;

static void on_term(int n) {
	(void)n;
	terminated = 1;
}

static int64_t join(void) {
	static char peers[64][128];
	const char *all[64];
	char told[128];
	int64_t group = 0;
	gangline_join_options o = {.size = sizeof o, .rank = rank, .peer_count = world, .peers = all, .job = 3, .epoch = 2};
	o.secret = "only ranks know this", o.secret_bytes = 20;
	CHECK(gangline_listen("127.0.0.1:0", &o.listener, told, sizeof told) == GANGLINE_OK);
	printf("%s\n", told);
	fflush(stdout);
	for (int i = 0; i < world; i++) {
		CHECK(fgets(peers[i], sizeof peers[i], stdin));
		peers[i][strcspn(peers[i], "\n")] = 0;
		all[i] = peers[i];
	}
	CHECK(gangline_join(&o, &group) == GANGLINE_OK);
	int32_t r, w;
	CHECK(gangline_place(group, &r, &w) == GANGLINE_OK && r == rank && w == world);
	return group;
}

static void collectives(int64_t group) {
	float f[1000];
	for (int i = 0; i < 1000; i++) f[i] = rank + i;
	CHECK(gangline_all_reduce(group, f, 1000, GANGLINE_FLOAT32, GANGLINE_SUM) == GANGLINE_OK);
	for (int i = 0; i < 1000; i++) CHECK(f[i] == world * i + world * (world - 1) / 2);

	uint16_t bf[3] = {0x3f80, 0x4000, 0xc040}; // 1, 2, -3 as bfloat16
	CHECK(gangline_all_reduce(group, bf, 3, GANGLINE_BFLOAT16, GANGLINE_MEAN) == GANGLINE_OK);
	CHECK(bf[0] == 0x3f80 && bf[1] == 0x4000 && bf[2] == 0xc040);

	int64_t from, to, n[7] = {0};
	CHECK(gangline_share(group, 7, &from, &to) == GANGLINE_OK);
	for (int64_t i = from; i < to; i++) n[i] = i * i;
	CHECK(gangline_all_gather(group, n, 7, GANGLINE_INT64) == GANGLINE_OK);
	for (int i = 0; i < 7; i++) CHECK(n[i] == i * i);
	CHECK(gangline_reduce_scatter(group, n, 7, GANGLINE_INT64, GANGLINE_MAX) == GANGLINE_OK);

	double d = rank;
	CHECK(gangline_broadcast(group, &d, 1, GANGLINE_FLOAT64, world - 1) == GANGLINE_OK && d == world - 1);
	CHECK(gangline_barrier(group) == GANGLINE_OK);

	int32_t *shared, done = 0;
	void *memory;
	int64_t work;
	CHECK(gangline_alloc(group, 4 << 16, &memory) == GANGLINE_OK);
	shared = memory;
	for (int i = 0; i < 1 << 16; i++) {
		CHECK(shared[i] == 0);
		shared[i] = i;
	}
	CHECK(gangline_start(group, GANGLINE_ALL_REDUCE, shared, 1 << 16, GANGLINE_INT32, GANGLINE_SUM, 0, &work) == GANGLINE_OK);
	CHECK(gangline_test(work, &done) == GANGLINE_OK && (done == 0 || done == 1));
	CHECK(gangline_wait(work, -1) == GANGLINE_OK);
	for (int i = 0; i < 1 << 16; i++) CHECK(shared[i] == world * i);
	CHECK(gangline_wait(work, 0) == GANGLINE_CLOSED); // the handle is gone
	CHECK(gangline_barrier(group) == GANGLINE_OK);
	CHECK(gangline_free(group, memory) == GANGLINE_OK);
	CHECK(gangline_free(group, memory) == GANGLINE_INVALID);
}

static void *in_thread(void *group) {
	CHECK(gangline_last_error()->code == 0); // another thread's error is not seen
	CHECK(gangline_all_reduce(*(int64_t *)group, NULL, 3, GANGLINE_FLOAT32, GANGLINE_SUM) == GANGLINE_INVALID);
	CHECK(gangline_last_error()->code == GANGLINE_INVALID && strstr(gangline_last_error()->text, "NULL"));
	return NULL;
}

static void wrong_calls(int64_t group) {
	float f = 1;
	char no_room[4];
	int64_t handle;
	pthread_t t;
	CHECK(gangline_all_reduce(group, &f, 1, GANGLINE_BOOL, GANGLINE_SUM) == GANGLINE_INVALID);
	CHECK(gangline_all_reduce(group, &f, 1, GANGLINE_FLOAT32, 99) == GANGLINE_INVALID);
	CHECK(gangline_all_reduce(group, &f, -1, GANGLINE_FLOAT32, GANGLINE_SUM) == GANGLINE_INVALID);
	CHECK(gangline_all_reduce(group + 99, &f, 1, GANGLINE_FLOAT32, GANGLINE_SUM) == GANGLINE_CLOSED);
	CHECK(strstr(gangline_last_error()->text, "handle"));
	CHECK(gangline_start(group, 77, &f, 1, GANGLINE_FLOAT32, GANGLINE_SUM, 0, &handle) == GANGLINE_INVALID);
	CHECK(gangline_broadcast(group, &f, 1, GANGLINE_FLOAT32, world) == GANGLINE_INVALID);
	CHECK(gangline_join(&(gangline_join_options){.size = 1}, &handle) == GANGLINE_INVALID);
	CHECK(gangline_listen("127.0.0.1:0", &handle, no_room, sizeof no_room) == GANGLINE_INVALID);
	// An address that is no memory is a bug of the caller, and still no end of the process.
	if (world == 1) CHECK(gangline_start(group, GANGLINE_ALL_REDUCE, (void *)8, 1 << 20, GANGLINE_FLOAT32, GANGLINE_SUM, 0, &handle) == GANGLINE_OK && gangline_wait(handle, -1) == GANGLINE_OK);
	CHECK(pthread_create(&t, NULL, in_thread, &group) == 0 && pthread_join(t, NULL) == 0);
	CHECK(f == 1);
}

// fork_and_go_on forks: the child is refused, the parent's group works on, and its signal handler is its own.
static void fork_and_go_on(int64_t group) {
	pid_t child = fork();
	if (child == 0) {
		float f = 1;
		if (gangline_all_reduce(group, &f, 1, GANGLINE_FLOAT32, GANGLINE_SUM) != GANGLINE_FORKED) _exit(1);
		if (!strstr(gangline_last_error()->text, "fork")) _exit(2);
		if (gangline_close(group) != GANGLINE_FORKED) _exit(3);
		_exit(0);
	}
	int status;
	CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK(raise(SIGTERM) == 0 && terminated);
	CHECK(gangline_barrier(group) == GANGLINE_OK);
}

// checkpoints saves a vector of which each rank has a part, commits, and reads it back.
static void checkpoints(int64_t group, const char *dir) {
	int64_t from, to, all = 10, step, need, store, save, opened;
	float mine[10], got[10];
	char text[4096];
	gangline_checkpoints_options o = {.size = sizeof o, .dir = dir, .job = "c", .epoch = 1, .rank = rank, .world_size = world};
	CHECK(gangline_checkpoints_open(&o, &store) == GANGLINE_OK);
	CHECK(gangline_checkpoint_latest(store, &opened) == GANGLINE_NONE);
	CHECK(gangline_barrier(group) == GANGLINE_OK); // all have looked
	CHECK(gangline_share(group, all, &from, &to) == GANGLINE_OK);
	for (int64_t i = from; i < to; i++) mine[i - from] = i * 0.5f;
	int64_t shape = to - from;
	CHECK(gangline_save_begin(store, 7, &save) == GANGLINE_OK);
	CHECK(gangline_save_tensor(save, "v", GANGLINE_FLOAT32, 1, &all, &from, &shape, mine) == GANGLINE_OK);
	CHECK(gangline_save_tensor(save, "w", 99, 1, &all, &from, &shape, mine) == GANGLINE_INVALID);
	CHECK(gangline_save_text(save, "who", "C") == GANGLINE_OK && gangline_save_metric(save, "loss", 0.25) == GANGLINE_OK);
	CHECK(gangline_save_write(save) == GANGLINE_OK);
	CHECK(gangline_barrier(group) == GANGLINE_OK);
	if (rank == 0) {
		CHECK(gangline_save_commit(save) == GANGLINE_OK);
		CHECK(gangline_checkpoints_saved(store, 0, &step) == GANGLINE_OK && step == 7);
	}
	CHECK(gangline_save_end(save) == GANGLINE_OK && gangline_save_end(save) == GANGLINE_CLOSED);
	CHECK(gangline_barrier(group) == GANGLINE_OK);
	CHECK(gangline_checkpoint_open(store, 1, 7, &opened) == GANGLINE_OK);
	CHECK(gangline_checkpoint_describe(opened, text, sizeof text, &need) == GANGLINE_OK && need == (int64_t)strlen(text) + 1);
	CHECK(strstr(text, "\"who\":\"C\"") && strstr(text, "\"shape\":[10]"));
	CHECK(gangline_checkpoint_read(opened, "v", 0, NULL, NULL, got, sizeof got) == GANGLINE_OK);
	for (int i = 0; i < 10; i++) CHECK(got[i] == i * 0.5f);
	CHECK(gangline_checkpoint_read(opened, "v", 1, &(int64_t){3}, &(int64_t){2}, got, 8) == GANGLINE_OK && got[0] == 1.5f && got[1] == 2);
	CHECK(gangline_checkpoint_read(opened, "v", 1, &(int64_t){9}, &(int64_t){2}, got, 8) == GANGLINE_INVALID);
	CHECK(gangline_checkpoint_read(opened, "x", 0, NULL, NULL, got, sizeof got) == GANGLINE_NONE);
	CHECK(gangline_checkpoint_close(opened) == GANGLINE_OK && gangline_checkpoints_close(store) == GANGLINE_OK);
}

int main(int argc, char **argv) {
	if (argc != 4) return 2;
	rank = atoi(argv[1]), world = atoi(argv[2]);
	CHECK(gangline_api_version() == GANGLINE_API_VERSION);
	CHECK(gangline_last_error()->code == 0 && gangline_last_error()->rank == -1);
	struct sigaction action = {.sa_handler = on_term};
	CHECK(sigaction(SIGTERM, &action, NULL) == 0);
	int64_t group = join();
	collectives(group);
	wrong_calls(group);
	checkpoints(group, argv[3]);
	fork_and_go_on(group);
	int32_t asked = 1;
	CHECK(gangline_stop_requested(&asked, NULL, 0, NULL, NULL) == GANGLINE_OK && asked == 0);
	CHECK(gangline_report_step(3, 10, 0.5, 1, &(const char *){"loss"}, &(double){1.5}) == GANGLINE_OK);
	CHECK(gangline_agent_close() == GANGLINE_OK);
	CHECK(gangline_close(group) == GANGLINE_OK);
	CHECK(gangline_barrier(group) == GANGLINE_CLOSED && gangline_close(group) == GANGLINE_CLOSED);
	return 0;
}
