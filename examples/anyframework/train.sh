#!/bin/sh
# A training program that knows nothing of Gangline: it saves its state in files of its own making, and reads them again.
# Only the three lines marked (*) are there for checkpoints.
#
#	gangline submit --gpus 1 --retries 3 -- sh "$PWD/examples/anyframework/train.sh" 50
set -eu
steps=${1:-50} every=${2:-5}

step=0 sum=0
if [ -n "${GANGLINE_RESUME_FROM:-}" ]; then # (*) the newest checkpoint: whole and verified
	. "$GANGLINE_RESUME_FROM/state.sh"
	echo "resumed from step $step"
fi

stop=
trap 'stop=yes' USR1 # the warning before a stop: save once more, and go

while [ "$step" -lt "$steps" ]; do
	step=$((step + 1))
	sum=$((sum + step)) # the "training"
	sleep "${STEP_SECONDS:-0.1}"
	if [ "${CRASH_AT:-0}" = "$step" ] && [ "${GANGLINE_EPOCH:-1}" = 1 ]; then
		echo "crashing at step $step"
		kill -9 $$
	fi
	if [ $((step % every)) = 0 ] || [ -n "$stop" ]; then
		new="$GANGLINE_CHECKPOINT_FILES_DIR/tmp-$step"                                   # (*) write beside, not over
		rm -rf "$new" && mkdir -p "$new/optimizer"
		echo "step=$step sum=$sum" >"$new/state.sh"
		head -c 100000 /dev/zero >"$new/optimizer/moments.bin"
		gangline checkpoint commit --step "$step" --metric sum="$sum" "$new" >/dev/null # (*) from here on it counts
		gangline worker progress --step "$step" --total "$steps" --metric sum="$sum"
	fi
	[ -z "$stop" ] || exit 75
done
echo "done: sum $sum"
