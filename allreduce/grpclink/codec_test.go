package grpclink

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/allreduce"
)

// cut splits bytes into many buffers, as the network does.
func cut(b []byte, size int) mem.BufferSlice {
	var out mem.BufferSlice
	for len(b) > 0 {
		n := min(size, len(b))
		out = append(out, mem.SliceBuffer(b[:n]))
		b = b[n:]
	}
	return out
}

func TestCodecRoundTrip(t *testing.T) {
	t.Parallel()
	pool := allreduce.NewPool(4096)
	rapid.Check(t, func(t *rapid.T) {
		u64, small := rapid.Uint64(), rapid.IntRange(0, 1<<20)
		want := allreduce.Header{
			Kind: allreduce.Kind(rapid.IntRange(0, 9).Draw(t, "kind")),
			Job:  u64.Draw(t, "job"), Epoch: u64.Draw(t, "epoch"), Sequence: u64.Draw(t, "sequence"),
			Index: u64.Draw(t, "index"), Length: u64.Draw(t, "length"), Rank: small.Draw(t, "rank"),
			Count: u64.Draw(t, "count"), Ack: u64.Draw(t, "ack"),
			Type: allreduce.Type(rapid.Byte().Draw(t, "type")), Op: allreduce.Op(rapid.Byte().Draw(t, "op")),
			Formation: rapid.Uint32Range(0, 1<<24-1).Draw(t, "formation"),
			Wire:      allreduce.Wire(rapid.Byte().Draw(t, "wire")),
			Call:      allreduce.Call(rapid.Byte().Draw(t, "call")),
			Cause:     rapid.StringN(0, 50, 200).Draw(t, "cause"),
			WorldSize: small.Draw(t, "world"), Window: small.Draw(t, "window"), ChunkBytes: small.Draw(t, "chunk"),
		}
		data := rapid.SliceOfN(rapid.Byte(), 0, 4096).Draw(t, "data")
		f := pool.Get(len(data))
		f.Header = want
		copy(f.Data, data)
		encoded, err := codec{}.Marshal(f)
		if err != nil {
			t.Fatalf("Marshal: %v", err)
		}
		wire := encoded.Materialize()
		encoded.Free()
		in := slot{pool: pool}
		if err := (codec{}).Unmarshal(cut(wire, rapid.IntRange(1, 5000).Draw(t, "cut")), &in); err != nil {
			t.Fatalf("Unmarshal: %v", err)
		}
		if diff := cmp.Diff(want, in.frame.Header); diff != "" {
			t.Errorf("header (-sent +received):\n%s", diff)
		}
		if diff := cmp.Diff(data, append([]byte{}, in.frame.Data...)); diff != "" && len(data) > 0 {
			t.Errorf("data (-sent +received):\n%s", diff)
		}
		in.frame.Release()
	})
}

// A frame is not lent again before gRPC has let go of every part of it.
func TestPayloadIsHeldUntilLastReferenceIsFreed(t *testing.T) {
	t.Parallel()
	pool := allreduce.NewPool(64 << 10)
	f := pool.Get(16 << 10)
	f.Kind = allreduce.KindData
	encoded, err := codec{}.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	encoded.Ref() // as gRPC's writer does
	encoded.Free()
	func() {
		defer func() {
			if recover() != nil {
				t.Error("the frame was released while a reference was left")
			}
		}()
		f.Release() // would panic if Free had released it already
	}()
}

// FuzzUnmarshal feeds the decoder what a stranger may send.
func FuzzUnmarshal(f *testing.F) {
	pool := allreduce.NewPool(1024)
	for _, kind := range []allreduce.Kind{allreduce.KindData, allreduce.KindAbort} {
		frame := pool.Get(10)
		frame.Header = allreduce.Header{Kind: kind, Job: 7, Epoch: 3, Rank: 2, Cause: "why"}
		encoded, err := codec{}.Marshal(frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded.Materialize(), 7)
	}
	f.Add([]byte{}, 1)
	f.Add([]byte{0x0a, 0x05, 0x72, 0xff, 0xff, 0xff, 0x7f}, 3)
	f.Fuzz(func(t *testing.T, wire []byte, size int) {
		in := slot{pool: pool}
		if err := (codec{}).Unmarshal(cut(wire, 1+max(0, size%64)), &in); err != nil {
			return
		}
		if len(in.frame.Data) > pool.Room() {
			t.Fatalf("a frame of %d bytes from a pool of %d", len(in.frame.Data), pool.Room())
		}
		in.frame.Release()
	})
}

// The numbers written here are those of ring.proto.
func TestFieldNumbersAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../proto/gangline/ring/v1/ring.proto")
	if err != nil {
		t.Fatal(err)
	}
	number := func(pattern string) map[string]int {
		found := map[string]int{}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			n, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatal(err)
			}
			found[m[1]] = n
		}
		return found
	}
	want := map[string]int{
		"kind": fieldKind, "job": fieldJob, "epoch": fieldEpoch, "sequence": fieldSequence, "index": fieldIndex,
		"length": fieldLength, "rank": fieldRank, "count": fieldCount, "ack": fieldAck, "cause": fieldCause,
		"world_size": fieldWorldSize, "window": fieldWindow, "chunk_bytes": fieldChunkBytes, "data": fieldData,
		"type": fieldType, "operation": fieldOp, "call": fieldCall, "token": fieldToken, "socket": fieldSocket, "proof": fieldProof, "wire": fieldWire, "formation": fieldFormation,
		"frame": fieldFrame,
	}
	if diff := cmp.Diff(want, number(`(?m)^  \w+ ([a-z_]+) = (\d+);`)); diff != "" {
		t.Errorf("fields (-code +ring.proto):\n%s", diff)
	}
	kinds := map[string]int{
		"UNSPECIFIED": 0, "HELLO": int(allreduce.KindHello), "REFUSE": int(allreduce.KindRefuse),
		"DATA": int(allreduce.KindData), "BARRIER": int(allreduce.KindBarrier), "CREDIT": int(allreduce.KindCredit),
		"HEARTBEAT": int(allreduce.KindHeartbeat), "ABORT": int(allreduce.KindAbort), "LEAVE": int(allreduce.KindLeave),
		"PATH": int(allreduce.KindPath),
	}
	if diff := cmp.Diff(kinds, number(`(?m)^  FRAME_KIND_([A-Z]+) = (\d+);`)); diff != "" {
		t.Errorf("kinds (-code +ring.proto):\n%s", diff)
	}
	types := map[string]int{"UNSPECIFIED": 0}
	for _, typ := range []allreduce.Type{
		allreduce.Float32, allreduce.Float64, allreduce.Float16, allreduce.BFloat16, allreduce.Int8, allreduce.Int32, allreduce.Int64,
	} {
		types[strings.ToUpper(typ.String())] = int(typ)
	}
	if diff := cmp.Diff(types, number(`(?m)^  ELEMENT_TYPE_([A-Z0-9]+) = (\d+);`)); diff != "" {
		t.Errorf("element types (-code +ring.proto):\n%s", diff)
	}
	ops := map[string]int{"UNSPECIFIED": 0}
	for _, op := range []allreduce.Op{allreduce.Sum, allreduce.Product, allreduce.Min, allreduce.Max, allreduce.Mean} {
		ops[strings.ToUpper(op.String())] = int(op)
	}
	if diff := cmp.Diff(ops, number(`(?m)^  OPERATION_([A-Z]+) = (\d+);`)); diff != "" {
		t.Errorf("operations (-code +ring.proto):\n%s", diff)
	}
	for _, line := range []string{"package gangline.ring.v1;", "service RingService {", "rpc Link(stream LinkRequest) returns (stream LinkResponse);"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("ring.proto does not hold %q, which %s relies on", line, linkMethod)
		}
	}
}
