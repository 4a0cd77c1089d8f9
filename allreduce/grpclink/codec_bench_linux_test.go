package grpclink

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink/h2stream"
	ringv1 "github.com/gangline/gangline/proto/gangline/ring/v1"
)

// BenchmarkStream sends chunks one way over one stream and loopback: as a link does, by grpc-go with our codec, as a link did before, and by what grpc-go
// does unless told otherwise: messages of generated code with the protobuf codec, and its options. The same bytes travel.
func BenchmarkStream(b *testing.B) {
	payload := make([]byte, allreduce.DefaultChunkBytes)
	cfg := Config{ChunkBytes: allreduce.DefaultChunkBytes, Window: allreduce.DefaultWindow}
	pool, reads := allreduce.NewPool(cfg.ChunkBytes), &readPool{}
	header := allreduce.Header{Kind: allreduce.KindData, Job: 1, Epoch: 1, Sequence: 1, Length: 1 << 24, Type: allreduce.Float32, Op: allreduce.Sum}
	b.Run("link", func(b *testing.B) { benchmarkLink(b, cfg, pool, header, payload) })
	b.Run("grpc-go", func(b *testing.B) {
		benchmarkStream(b, cfg.serverOptions(), cfg.dialOptions(reads),
			func() any {
				f := pool.Get(len(payload))
				f.Header = header
				copy(f.Data, payload)
				return f
			},
			func() any { return &slot{pool: pool} },
			func(m any) int {
				s, _ := m.(*slot)
				defer s.frame.Release()
				return len(s.frame.Data)
			})
	})
	b.Run("protobuf", func(b *testing.B) {
		limit := 2 * len(payload)
		benchmarkStream(b, []grpc.ServerOption{grpc.MaxRecvMsgSize(limit)},
			[]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
			func() any {
				return &ringv1.LinkRequest{Frame: &ringv1.Frame{Kind: ringv1.FrameKind_FRAME_KIND_DATA, Job: 1, Epoch: 1, Sequence: 1, Length: 1 << 24, Data: payload}}
			},
			func() any { return &ringv1.LinkRequest{} },
			func(m any) int {
				r, _ := m.(*ringv1.LinkRequest)
				return len(r.GetFrame().GetData())
			})
	})
}

// benchmarkLink sends b.N chunks from memory of the caller over a stream of package h2stream.
func benchmarkLink(b *testing.B, cfg Config, pool *allreduce.Pool, header allreduce.Header, payload []byte) {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // a test's
	received := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- err
			return
		}
		call, err := h2stream.Serve(conn, nil, cfg.streamConfig())
		if err != nil {
			received <- err
			return
		}
		defer call.Close()
		in := slot{pool: pool}
		for s := newRPC(call, false); err == nil; in.frame.Release() {
			if err = s.RecvMsg(&in); err != nil {
				break
			}
		}
		received <- call.Finish(nil)
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	keepNear(conn)
	call, err := h2stream.Dial(conn, cfg.streamConfig(), linkMethod, "ring", false)
	if err != nil {
		b.Fatal(err)
	}
	defer call.Close()
	s := newRPC(call, false)
	ended := make(chan error, 1)
	go func() { ended <- s.RecvMsg(&slot{pool: pool}) }() // hears the other side's windows
	b.SetBytes(allreduce.DefaultChunkBytes)
	b.ResetTimer()
	from := processorTime(b)
	for range b.N {
		f := pool.Get(0)
		f.Header = header
		f.Place(payload)
		if err := s.SendMsg(f); err != nil {
			b.Fatal(err)
		}
	}
	s.closeSend()
	if err := <-received; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric((processorTime(b)-from)/float64(b.N)/allreduce.DefaultChunkBytes*1e9, "cpu-s/GB")
	if err := <-ended; !errors.Is(err, io.EOF) {
		b.Fatal(err)
	}
}

// benchmarkStream sends b.N messages to a server, which says when it has them all.
func benchmarkStream(b *testing.B, server []grpc.ServerOption, client []grpc.DialOption, message, room func() any, size func(any) int) {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	received := make(chan error, 1)
	s := grpc.NewServer(server...)
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{*streamDesc(func(_ any, stream grpc.ServerStream) error {
			for range b.N {
				m := room()
				if err := stream.RecvMsg(m); err != nil {
					received <- err
					return err
				}
				size(m)
			}
			received <- nil
			return nil
		})},
	}, nil)
	go s.Serve(listener) //nolint:errcheck // ends with Stop
	defer s.Stop()
	conn, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), client...)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	stream, err := conn.NewStream(b.Context(), streamDesc(nil), linkMethod)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(allreduce.DefaultChunkBytes)
	b.ResetTimer()
	from := processorTime(b)
	for range b.N {
		if err := stream.SendMsg(message()); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-received; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric((processorTime(b)-from)/float64(b.N)/allreduce.DefaultChunkBytes*1e9, "cpu-s/GB")
}

// processorTime returns the seconds that the process has used.
func processorTime(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
