// The calls of gangline.h. Each looks whether this process is a fork first, where no Go code can run, and then enters Go.
//
// An error is kept for each thread: Go sets it while it still runs on the thread that called.

#include "gangline.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

// The room for thread-local variables of a library that is loaded late is small, so a thread's error lies elsewhere; made at its first
// error, freed with the thread.
static pthread_key_t last_error;
static const gangline_error none = {0, -1, ""};
static volatile int forked;

__attribute__((visibility("hidden"))) void gangline_set_error(int32_t code, int32_t rank, const char *text, int64_t length) {
	gangline_error *e = pthread_getspecific(last_error);
	if (!e) {
		e = malloc(sizeof *e);
		if (!e || pthread_setspecific(last_error, e)) {
			free(e); // the code is all that the caller gets
			return;
		}
	}
	if (length > (int64_t)sizeof e->text - 1) length = sizeof e->text - 1;
	e->code = code;
	e->rank = rank;
	memcpy(e->text, text, length);
	e->text[length] = 0;
}

static void in_child(void) { forked = 1; }

// A vfork or a spawn does not come here; neither could make a call before its exec.
__attribute__((constructor)) static void begin(void) {
	pthread_key_create(&last_error, free);
	pthread_atfork(0, 0, in_child);
}

static int32_t refused(void) {
	static const char why[] =
		"this process is a fork of the one that loaded libgangline, and Go's threads are not in it: "
		"make calls in the parent, or start processes with spawn instead of fork";
	gangline_set_error(GANGLINE_FORKED, -1, why, sizeof why - 1);
	return GANGLINE_FORKED;
}

#define ENTER(call) (forked ? refused() : (call))

const gangline_error *gangline_last_error(void) {
	const gangline_error *e = pthread_getspecific(last_error);
	return e ? e : &none;
}

int32_t gangline_api_version(void) { return GANGLINE_API_VERSION; }

int32_t gangline_join(const gangline_join_options *options, int64_t *group) {
	return ENTER(goJoin((gangline_join_options *)options, group));
}

int32_t gangline_listen(const char *address, int64_t *listener, char *told, int32_t room) {
	return ENTER(goListen((char *)address, listener, told, room));
}

int32_t gangline_close(int64_t group) { return ENTER(goClose(group)); }

int32_t gangline_place(int64_t group, int32_t *rank, int32_t *world_size) { return ENTER(goPlace(group, rank, world_size)); }

int32_t gangline_all_reduce(int64_t group, void *data, int64_t count, int32_t type, int32_t op) {
	return ENTER(goRun(group, GANGLINE_ALL_REDUCE, data, count, type, op, 0));
}

int32_t gangline_reduce_scatter(int64_t group, void *data, int64_t count, int32_t type, int32_t op) {
	return ENTER(goRun(group, GANGLINE_REDUCE_SCATTER, data, count, type, op, 0));
}

int32_t gangline_all_gather(int64_t group, void *data, int64_t count, int32_t type) {
	return ENTER(goRun(group, GANGLINE_ALL_GATHER, data, count, type, 0, 0));
}

int32_t gangline_broadcast(int64_t group, void *data, int64_t count, int32_t type, int32_t root) {
	return ENTER(goRun(group, GANGLINE_BROADCAST, data, count, type, 0, root));
}

int32_t gangline_barrier(int64_t group) { return ENTER(goRun(group, GANGLINE_BARRIER, 0, 0, 0, 0, 0)); }

int32_t gangline_share(int64_t group, int64_t count, int64_t *from, int64_t *to) { return ENTER(goShare(group, count, from, to)); }

int32_t gangline_alloc(int64_t group, int64_t bytes, void **data) { return ENTER(goAlloc(group, bytes, data)); }

int32_t gangline_free(int64_t group, void *data) { return ENTER(goFree(group, data)); }

int32_t gangline_start(int64_t group, int32_t call, void *data, int64_t count, int32_t type, int32_t op, int32_t root, int64_t *work) {
	return ENTER(goStart(group, call, data, count, type, op, root, work));
}

int32_t gangline_wait(int64_t work, int64_t timeout_ms) { return ENTER(goWait(work, timeout_ms)); }

int32_t gangline_test(int64_t work, int32_t *done) { return ENTER(goTest(work, done)); }

int32_t gangline_cancel(int64_t work) { return ENTER(goCancel(work)); }

int32_t gangline_report_step(int64_t step, int64_t total_steps, double data_epoch, int32_t metrics, const char *const *names, const double *values) {
	return ENTER(goReportStep(step, total_steps, data_epoch, metrics, (char **)names, (double *)values));
}

int32_t gangline_stop_requested(int32_t *asked, char *reason, int32_t room, int64_t *terminate_ms, int64_t *kill_ms) {
	return ENTER(goStopRequested(asked, reason, room, terminate_ms, kill_ms));
}

int32_t gangline_report_peer_lost(int32_t rank, const char *cause) { return ENTER(goReportPeerLost(rank, (char *)cause)); }

int32_t gangline_agent_close(void) { return ENTER(goAgentClose()); }

int32_t gangline_checkpoints_open(const gangline_checkpoints_options *options, int64_t *checkpoints) {
	return ENTER(goCheckpointsOpen((gangline_checkpoints_options *)options, checkpoints));
}

int32_t gangline_checkpoints_close(int64_t checkpoints) { return ENTER(goCheckpointsClose(checkpoints)); }

int32_t gangline_checkpoints_epoch(int64_t checkpoints, uint64_t *epoch) { return ENTER(goCheckpointsEpoch(checkpoints, epoch)); }

int32_t gangline_checkpoints_collect(int64_t checkpoints) { return ENTER(goCheckpointsCollect(checkpoints)); }

int32_t gangline_checkpoints_saved(int64_t checkpoints, int32_t wait, int64_t *step) { return ENTER(goCheckpointsSaved(checkpoints, wait, step)); }

int32_t gangline_save_begin(int64_t checkpoints, int64_t step, int64_t *save) { return ENTER(goSaveBegin(checkpoints, step, save)); }

int32_t gangline_save_tensor(int64_t save, const char *name, int32_t type, int32_t dims, const int64_t *global, const int64_t *offset, const int64_t *shape, const void *data) {
	return ENTER(goSaveTensor(save, (char *)name, type, dims, (int64_t *)global, (int64_t *)offset, (int64_t *)shape, (void *)data));
}

int32_t gangline_save_text(int64_t save, const char *key, const char *value) { return ENTER(goSaveText(save, (char *)key, (char *)value)); }

int32_t gangline_save_metric(int64_t save, const char *name, double value) { return ENTER(goSaveMetric(save, (char *)name, value)); }

int32_t gangline_save_write(int64_t save) { return ENTER(goSaveWrite(save)); }

int32_t gangline_save_commit(int64_t save) { return ENTER(goSaveCommit(save)); }

int32_t gangline_save_later(int64_t save, int64_t *stall_us) { return ENTER(goSaveLater(save, stall_us)); }

int32_t gangline_save_end(int64_t save) { return ENTER(goSaveEnd(save)); }

int32_t gangline_checkpoint_latest(int64_t checkpoints, int64_t *checkpoint) { return ENTER(goCheckpointLatest(checkpoints, checkpoint)); }

int32_t gangline_checkpoint_open(int64_t checkpoints, uint64_t epoch, uint64_t step, int64_t *checkpoint) {
	return ENTER(goCheckpointOpen(checkpoints, epoch, step, checkpoint));
}

int32_t gangline_checkpoint_close(int64_t checkpoint) { return ENTER(goCheckpointClose(checkpoint)); }

int32_t gangline_checkpoint_describe(int64_t checkpoint, char *json, int64_t room, int64_t *need) {
	return ENTER(goCheckpointDescribe(checkpoint, json, room, need));
}

int32_t gangline_checkpoint_read(int64_t checkpoint, const char *name, int32_t dims, const int64_t *offset, const int64_t *shape, void *data, int64_t bytes) {
	return ENTER(goCheckpointRead(checkpoint, (char *)name, dims, (int64_t *)offset, (int64_t *)shape, data, bytes));
}

int32_t gangline_start_all_reduce(int64_t group, void *data, int64_t count, int32_t type, int32_t op, const gangline_all_reduce_options *options, int64_t *work) {
	return ENTER(goStartAllReduce(group, data, count, type, op, (gangline_all_reduce_options *)options, work));
}

int32_t gangline_feedback_new(int64_t count, int64_t *feedback) { return ENTER(goFeedbackNew(count, feedback)); }

int32_t gangline_feedback_free(int64_t feedback) { return ENTER(goFeedbackFree(feedback)); }

int32_t gangline_save_due(int64_t step, int32_t *due, int32_t *known) { return ENTER(goSaveDue(step, due, known)); }

int32_t gangline_formation(int64_t group, int32_t *formation, int32_t *members, int32_t room) {
	return ENTER(goFormation(group, formation, members, room));
}

int32_t gangline_newest_formation(int32_t *formation) { return ENTER(goNewestFormation(formation)); }

int32_t gangline_send(int64_t group, int32_t to, void *data, int64_t count, int32_t type) { return ENTER(goSend(group, to, data, count, type)); }

int32_t gangline_recv(int64_t group, int32_t from, void *data, int64_t count, int32_t type) { return ENTER(goRecv(group, from, data, count, type)); }
