/* gangline.h: the C interface of libgangline, version 1.
 *
 * For training programs of any language: collectives over the ranks of a job, its agent, and its checkpoints. Python programs use
 * python/gangline, which is made of these calls; Go programs use the packages themselves.
 *
 * Rules
 *
 * - A call returns GANGLINE_OK, or a code that says what kind of error it was; gangline_last_error then tells the rest, for the calling thread.
 *   No call ends the process. Every call may be made by any thread at any time, unless it says otherwise.
 * - Groups, works and the like are handles: numbers above 0, never used twice. Calls on one that was closed return GANGLINE_CLOSED.
 * - Memory stays the caller's, and must stay in place until the call that was given it has returned, or gangline_wait has.
 * - The library loads a Go runtime into the process. It installs signal handlers for SIGSEGV, SIGBUS, SIGFPE, SIGPIPE and SIGURG, which pass
 *   on to the program's own what does not come from Go code, and leaves all others alone. Handlers that a program installs later
 *   need SA_ONSTACK, as Python's have.
 * - After fork the library works on in the parent. In the child every call returns GANGLINE_FORKED. Programs that a child execs
 *   are not concerned.
 *
 * Within a version, calls and codes may be added and fields may be added at the end of structures that begin with their size; nothing else
 * changes. A program checks gangline_api_version() >= GANGLINE_API_VERSION.
 */
#ifndef GANGLINE_H
#define GANGLINE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GANGLINE_API_VERSION 1

/* What a call returns. */
enum {
	GANGLINE_OK = 0,
	GANGLINE_INVALID = 1,    /* an argument breaks a rule; nothing happened */
	GANGLINE_RANK_LOST = 2,  /* a rank was lost: gangline_last_error()->rank. The group is broken; join again at the next epoch */
	GANGLINE_CLOSED = 3,     /* what the handle names was closed */
	GANGLINE_TIMEOUT = 4,    /* the time for waiting is over; what was waited for goes on */
	GANGLINE_FENCED = 5,     /* a newer epoch of the job has begun: this process is late and must end */
	GANGLINE_NONE = 6,       /* there is no checkpoint, or no such tensor */
	GANGLINE_DAMAGED = 7,    /* bytes on storage are not those that were written */
	GANGLINE_NO_SPACE = 8,   /* the storage is full */
	GANGLINE_INCOMPLETE = 9, /* not all ranks have written their part of the checkpoint */
	GANGLINE_BUSY = 10,      /* it is in use */
	GANGLINE_FORKED = 11,    /* this process is a fork of the one that loaded the library */
	GANGLINE_FAILED = 12,    /* anything else; the text says what */
	GANGLINE_PANICKED = 13   /* a bug in the library; the text says where */
};

/* What an element is. Calls on groups take the first seven, checkpoints all. */
enum {
	GANGLINE_FLOAT32 = 1,
	GANGLINE_FLOAT64 = 2,
	GANGLINE_FLOAT16 = 3,
	GANGLINE_BFLOAT16 = 4,
	GANGLINE_INT8 = 5,
	GANGLINE_INT32 = 6,
	GANGLINE_INT64 = 7,
	GANGLINE_INT16 = 8,
	GANGLINE_UINT8 = 9,
	GANGLINE_UINT16 = 10,
	GANGLINE_UINT32 = 11,
	GANGLINE_UINT64 = 12,
	GANGLINE_BOOL = 13, /* one byte each, 0 or 1 */
	GANGLINE_FLOAT8_E4M3FN = 14,
	GANGLINE_FLOAT8_E5M2 = 15
};

/* How the elements of all ranks become one. */
enum {
	GANGLINE_SUM = 1,
	GANGLINE_PRODUCT = 2,
	GANGLINE_MIN = 3,
	GANGLINE_MAX = 4,
	GANGLINE_MEAN = 5 /* the sum, divided once by the number of ranks */
};

/* In which form float32 travels between machines, in sums and means: fewer bytes, which lose some of the value. Where ranks share memory nothing travels, and
 * nothing is lost. */
enum {
	GANGLINE_WIRE_GROUP = 0, /* that of gangline_join_options */
	GANGLINE_WIRE_EXACT = 1,
	GANGLINE_WIRE_BF16 = 2, /* 2 bytes: over n ranks a sum is off by at most n * 2^-8 of the sum of the magnitudes */
	GANGLINE_WIRE_INT8 = 3  /* 1 byte: by n/254 of the largest such sum of 256 neighbours */
};

/* Calls for gangline_start. */
enum {
	GANGLINE_ALL_REDUCE = 1,
	GANGLINE_REDUCE_SCATTER = 2,
	GANGLINE_ALL_GATHER = 3,
	GANGLINE_BROADCAST = 4,
	GANGLINE_BARRIER = 5
};

typedef struct gangline_error {
	int32_t code;
	int32_t rank; /* the rank that was lost, or -1 */
	char text[2040];
} gangline_error;

/* The error of the calling thread's last call that failed, or a code of 0 before the first. It never fails, also not after fork. */
const gangline_error *gangline_last_error(void);

/* The version of this interface that the library has. It never fails. */
int32_t gangline_api_version(void);

/* ---- Groups ---- */

typedef struct gangline_join_options {
	uint32_t size;             /* sizeof(gangline_join_options) */
	int32_t rank;              /* with peers: this process's number */
	const char *listen;        /* where the previous rank connects; NULL: any port of any interface */
	const char *path;          /* what data travels on: auto, shm, unix, tcp, grpc; NULL: auto. The same on all ranks */
	int64_t join_timeout_ms;   /* how long the others may take to come; 0: 5 minutes */
	int64_t detect_timeout_ms; /* how long a rank may be silent before it is lost; 0: 2 seconds */
	const char *const *peers;  /* addresses (host:port) of all ranks, by rank; NULL: those that the agent tells */
	int32_t peer_count;
	int32_t secret_bytes;
	int64_t listener;     /* with peers: of gangline_listen, whose address the others were told */
	uint64_t job, epoch;  /* with peers: which group this is; others are refused */
	uint32_t formation;   /* which set of ranks of the epoch this is; without peers the least that will do: after a loss, one above that of the group that broke */
	uint32_t reserved;
	const char *wire;     /* in which form float32 travels: exact, bf16, int8; NULL: exact. The same on all ranks */
	const void *secret;   /* with peers: secret_bytes (16 or more) that only its ranks know, so that no stranger can join: a group of several needs one */
} gangline_join_options;

/* Joins the group of this process's job and waits until all ranks have. Without an agent (GANGLINE_AGENT_SOCKET) or peers it is a group of one.
 * options may be NULL. */
int32_t gangline_join(const gangline_join_options *options, int64_t *group);

/* Opens a port for gangline_join_options.listener, and tells its address, host:port, in room bytes. For programs that tell each other their
 * addresses by themselves. */
int32_t gangline_listen(const char *address, int64_t *listener, char *told, int32_t room);

/* Leaves the group. Calls under way end with GANGLINE_CLOSED. Memory of gangline_alloc stays until it is freed. */
int32_t gangline_close(int64_t group);

int32_t gangline_place(int64_t group, int32_t *rank, int32_t *world_size);

/* Which set of ranks of the epoch this is, from 1, and the ranks in the job of its places, as many as there is room for; 0 where nobody told. In a gang that goes on without
 * ranks that were lost (on_failure: shrink), a place in a later formation is not a worker's rank. members may be NULL. */
int32_t gangline_formation(int64_t group, int32_t *formation, int32_t *members, int32_t room);

/* Collectives. All ranks make the same calls on a group in the same order, with the same count and type. They work in place, on data itself, and
 * wait for ranks that live and have not called yet, without a limit. After an error of GANGLINE_RANK_LOST data is neither input nor result.
 * Calls of several threads on one group are made in the order in which they began. */
int32_t gangline_all_reduce(int64_t group, void *data, int64_t count, int32_t type, int32_t op);

/* The result is elements from..to (to not included) of data, as gangline_share gives them; the rest is this rank's input still. */
int32_t gangline_reduce_scatter(int64_t group, void *data, int64_t count, int32_t type, int32_t op);

/* Each rank gives its elements from..to of data, and gets those of all others. */
int32_t gangline_all_gather(int64_t group, void *data, int64_t count, int32_t type);
int32_t gangline_broadcast(int64_t group, void *data, int64_t count, int32_t type, int32_t root);
int32_t gangline_barrier(int64_t group);

/* A message from one rank to another, which call these two with the same count and type. Messages between two ranks arrive in order, and have nothing to do with the
 * order of other calls. A send returns when data may be used again, which for more than some megabytes is when the other receives: two ranks that send such to each
 * other at once wait for ever, unless another thread of each receives. */
int32_t gangline_send(int64_t group, int32_t to, void *data, int64_t count, int32_t type);
int32_t gangline_recv(int64_t group, int32_t from, void *data, int64_t count, int32_t type);

/* Which of count elements are this rank's own in gangline_reduce_scatter and gangline_all_gather. */
int32_t gangline_share(int64_t group, int64_t count, int64_t *from, int64_t *to);

/* Zeroed memory for data, in pages that all ranks share if they are on one machine: an all-reduce of long data that lies so on all ranks copies
 * nothing. Freeing it when a call on it is under way, on any rank, is an error that nobody can see. Once the group has broken, use it for nothing any more
 * and free it: a rank that hung in the middle of a call goes on to write its part of the result to it when it wakes. */
int32_t gangline_alloc(int64_t group, int64_t bytes, void **data);
int32_t gangline_free(int64_t group, void *data);

/* Begins a collective, which goes on while the caller does other things; call is GANGLINE_ALL_REDUCE or the like, op and root are 0 where
 * they mean nothing. Several may be under way; they are made in the order in which they began. Every work must be waited for. */
int32_t gangline_start(int64_t group, int32_t call, void *data, int64_t count, int32_t type, int32_t op, int32_t root, int64_t *work);

typedef struct gangline_all_reduce_options {
	uint32_t size;    /* sizeof(gangline_all_reduce_options) */
	int32_t wire;     /* GANGLINE_WIRE_..., the same on all ranks */
	int64_t feedback; /* of gangline_feedback_new; 0: none */
	int64_t tag;      /* below 0: none. Else calls are made in the order of their tags, 0, 1, 2 and so on, in whatever order each rank begins them, at most
	                   * 256 ahead. Of other calls on the group none may be under way; they run before or after all tagged ones that have begun */
} gangline_all_reduce_options;

/* gangline_start of an all-reduce, with options. */
int32_t gangline_start_all_reduce(int64_t group, void *data, int64_t count, int32_t type, int32_t op, const gangline_all_reduce_options *options, int64_t *work);

/* Keeps what a form of fewer bytes lost of count float32 in one call, and adds it in the next, so that a sum over many calls is off by no more than one call is. Data that is
 * combined again and again has its own, on each rank; one call at a time uses it. */
int32_t gangline_feedback_new(int64_t count, int64_t *feedback);
int32_t gangline_feedback_free(int64_t feedback);

/* Waits, at most for the time given unless it is negative, and returns the result of the collective. After any code but GANGLINE_TIMEOUT
 * the handle is gone. */
int32_t gangline_wait(int64_t work, int64_t timeout_ms);

/* Says whether a work is done, so that gangline_wait returns at once. */
int32_t gangline_test(int64_t work, int32_t *done);

/* Gives a work up, which breaks the group for all ranks unless it is done or has not begun. gangline_wait must still be called, and returns soon. */
int32_t gangline_cancel(int64_t work);

/* ---- The agent of this node ----
 * Outside Gangline reports go nowhere, and nobody asks to stop. */

/* Tells how far the training is; returns at once, and only the latest counts. total_steps 0: unknown. At most 32 metrics. */
int32_t gangline_report_step(int64_t step, int64_t total_steps, double data_epoch, int32_t metrics, const char *const *names, const double *values);

/* Says whether the agent wants this process to save and end; then why, in room bytes, and in how many milliseconds SIGTERM and SIGKILL
 * come. reason, terminate_ms and kill_ms may be NULL. */
int32_t gangline_stop_requested(int32_t *asked, char *reason, int32_t room, int64_t *terminate_ms, int64_t *kill_ms);

/* The newest formation that the agent told of, 0 while it told of none. If it is above the group's, a worker waits to join, or one was lost: leave the group, on all ranks
 * after the same step, and join again. */
int32_t gangline_newest_formation(int32_t *formation);

/* Says whether to save now, step steps having been done since the start of the job, by the job's checkpoint policy. known is 0 where the job leaves it to the
 * program. One rank asks and tells the others; a save that is due is told once. It waits a second at most. */
int32_t gangline_save_due(int64_t step, int32_t *due, int32_t *known);

/* Tells the agent that this process is about to end because it lost a rank, so that the job starts again without blame for it. */
int32_t gangline_report_peer_lost(int32_t rank, const char *cause);

/* Ends the connection to the agent once it has the last report. A later call opens it again. */
int32_t gangline_agent_close(void);

/* ---- Checkpoints ----
 * A checkpoint is whole and verified, or absent. Each rank writes its part of the tensors; once all have, rank 0 commits. Any number of ranks
 * reads what any other number wrote. */

typedef struct gangline_checkpoints_options {
	uint32_t size;      /* sizeof(gangline_checkpoints_options) */
	int32_t keep;       /* how many complete checkpoints stay; 0: what the job says, or 3 */
	const char *dir;    /* the job's own directory; NULL: GANGLINE_CHECKPOINT_DIR */
	const char *job;    /* whose they are; NULL: this job's */
	uint64_t epoch;     /* the epoch to begin; 0: this job's. Outside Gangline the one after the last, which one rank must find and tell the others */
	int32_t rank;       /* which part this process writes, and of how many; */
	int32_t world_size; /* 0: as the environment says */
} gangline_checkpoints_options;

/* Begins the epoch in the directory: from here on older epochs of the job can save nothing more. All ranks call it. options may be NULL. */
int32_t gangline_checkpoints_open(const gangline_checkpoints_options *options, int64_t *checkpoints);

/* Waits until what was saved by gangline_save_later has ended, and gives the error of one that went wrong, if it was not told before. */
int32_t gangline_checkpoints_close(int64_t checkpoints);
int32_t gangline_checkpoints_epoch(int64_t checkpoints, uint64_t *epoch);

/* Removes checkpoints beyond those to keep, and what is left of half-written ones. A commit does so too. Rank 0 calls it. */
int32_t gangline_checkpoints_collect(int64_t checkpoints);

/* The newest step that this process knows to be committed, or -1. With wait not 0, after all asynchronous saves have ended. Returns, once, the error of
 * an asynchronous save, or what went wrong after a commit: the report to the agent, the removal of old ones. */
int32_t gangline_checkpoints_saved(int64_t checkpoints, int32_t wait, int64_t *step);

/* A save of one step: begin it, add tensors, then either write it, and once all ranks have (a barrier tells), commit it on rank 0; or save it later, which copies
 * the tensors and commits by itself. Steps rise from save to save. One thread at a time uses a save. */
int32_t gangline_save_begin(int64_t checkpoints, int64_t step, int64_t *save);

/* Adds this rank's box, of shape at offset, of a tensor of shape global, each of dims numbers (0: a scalar). The boxes of all ranks cover the tensor exactly
 * once. data stays in place until gangline_save_write or gangline_save_later has returned. */
int32_t gangline_save_tensor(int64_t save, const char *name, int32_t type, int32_t dims, const int64_t *global, const int64_t *offset, const int64_t *shape, const void *data);

/* Says something of the whole checkpoint. What rank 0 says counts. */
int32_t gangline_save_text(int64_t save, const char *key, const char *value);
int32_t gangline_save_metric(int64_t save, const char *name, double value);

/* Makes this rank's part durable. */
int32_t gangline_save_write(int64_t save);

/* Makes the checkpoint count, tells the agent, and removes old ones. GANGLINE_OK means that it is committed; gangline_checkpoints_saved tells whether
 * the rest went wrong. */
int32_t gangline_save_commit(int64_t save);

/* Copies the tensors into memory that is kept from save to save, and returns; in a job the agent finishes what is copied if this process dies. It waits while the last
 * such save is not durable. stall_us is how long it held up the caller. gangline_checkpoints_saved tells how it ended. */
int32_t gangline_save_later(int64_t save, int64_t *stall_us);

/* Forgets a save. Each must be. */
int32_t gangline_save_end(int64_t save);

/* Opens the newest checkpoint of which every byte verifies. GANGLINE_NONE: start from nothing. GANGLINE_DAMAGED: there are some and none is good, so a person must
 * decide. One rank calls it and tells the others its epoch and step, with which they call gangline_checkpoint_open. */
int32_t gangline_checkpoint_latest(int64_t checkpoints, int64_t *checkpoint);
int32_t gangline_checkpoint_open(int64_t checkpoints, uint64_t epoch, uint64_t step, int64_t *checkpoint);
int32_t gangline_checkpoint_close(int64_t checkpoint);

/* What there is to know of it, as JSON: epoch, step, world_size, path, saved_unix_ms, meta (what gangline_save_text said), metrics, tensors (by name: type and
 * shape), damaged (newer ones that do not verify, and why). It is written into room bytes with a final 0 if it fits; need is what it needs. */
int32_t gangline_checkpoint_describe(int64_t checkpoint, char *json, int64_t room, int64_t *need);

/* Reads the box of shape at offset of a tensor into data, which has exactly its size in bytes; every chunk is verified. offset and shape NULL: all of it. */
int32_t gangline_checkpoint_read(int64_t checkpoint, const char *name, int32_t dims, const int64_t *offset, const int64_t *shape, void *data, int64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
