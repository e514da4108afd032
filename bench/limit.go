package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// limitSuite measures what this machine can do at best, whatever a program does with it.
func limitSuite(ctx context.Context, r *run) error {
	for _, level := range cpu.Levels() {
		if level == "portable" {
			continue // is no limit of the machine
		}
		c := cell{suite: "limit", kase: "multiply-adds in float32, one thread, " + level}
		if _, err := r.measure(ctx, c, []metric{{name: "multiply-adds/s", unit: "1/s"}}, subject{name: "this machine", role: Limit,
			once: one("multiply-adds/s", func(context.Context) (float64, error) { return cpu.PeakFMA(level, r.Sample) })}); err != nil {
			return err
		}
	}
	if err := r.bandwidth(ctx); err != nil {
		return err
	}
	return r.loopback(ctx)
}

// bandwidth is of memory, one thread: 256 MB are more than any cache is likely to hold, though a server's third level may
// hold part of them.
func (r *run) bandwidth(ctx context.Context) error {
	size := 256 << 20
	if r.Smoke {
		size = 1 << 20
	}
	from, to := make([]uint64, size/8), make([]uint64, size/8)
	for i := range from {
		from[i] = uint64(i)
	}
	var sum uint64 // kept, so that the reads are
	pass := func(name string, bytes float64, work func()) subject {
		return subject{name: name, role: Limit, once: one("bytes/s", func(ctx context.Context) (float64, error) {
			times, err := r.perSecond(ctx, func() error { work(); return nil })
			return times * bytes, err
		})}
	}
	_, err := r.measure(ctx, cell{suite: "limit", kase: fmt.Sprintf("memory, %d MB, one thread", size>>20)}, []metric{{name: "bytes/s", unit: "1/s"}},
		pass("read", float64(size), func() { sum ^= readAll(from) }),
		pass("copy (read and written)", 2*float64(size), func() { copy(to, from) }))
	runtime.KeepAlive(&sum)
	return err
}

// readAll reads 16 bytes a cycle where memory gives them: more than it does for one thread.
func readAll(from []uint64) (sum uint64) {
	for ; len(from) >= 8; from = from[8:] {
		v := from[:8:8]
		sum ^= v[0] ^ v[1] ^ v[2] ^ v[3] ^ v[4] ^ v[5] ^ v[6] ^ v[7]
	}
	return sum
}

// loopback is TCP between two goroutines on 127.0.0.1, as clients and broker talk.
func (r *run) loopback(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	const message, chunk = 64, 1 << 18
	served := make(chan error, 2)
	go func() { // ends with the second connection
		for range 2 {
			c, err := l.Accept()
			if err != nil {
				served <- err
				return
			}
			go func() { // ends with its connection
				defer c.Close()
				var kind [1]byte
				if _, err := io.ReadFull(c, kind[:]); err != nil {
					served <- err
					return
				}
				if kind[0] == 'e' { // echo
					b := make([]byte, message)
					for {
						if _, err := io.ReadFull(c, b); err != nil {
							served <- nil
							return
						}
						if _, err := c.Write(b); err != nil {
							served <- err
							return
						}
					}
				}
				_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, chunk))
				served <- err
			}()
		}
	}()
	dial := func(kind string) (net.Conn, error) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		if _, err := c.Write([]byte(kind)); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
	stream, err := dial("s")
	if err != nil {
		return err
	}
	defer stream.Close()
	echo, err := dial("e")
	if err != nil {
		return err
	}
	defer echo.Close()
	data, small := make([]byte, chunk), make([]byte, message)
	if _, err := r.measure(ctx, cell{suite: "limit", kase: "TCP on 127.0.0.1, one connection"}, []metric{{name: "bytes/s", unit: "1/s"}},
		subject{name: "this machine", role: Limit, once: one("bytes/s", func(ctx context.Context) (float64, error) {
			times, err := r.perSecond(ctx, func() error { _, err := stream.Write(data); return err })
			return times * chunk, err
		})}); err != nil {
		return err
	}
	_, err = r.measure(ctx, cell{suite: "limit", kase: fmt.Sprintf("TCP on 127.0.0.1, there and back, %d bytes", message)}, []metric{{name: "round trip", unit: "µs", lower: true}},
		subject{name: "this machine", role: Limit, once: one("round trip", func(ctx context.Context) (float64, error) {
			times, err := r.perSecond(ctx, func() error {
				if _, err := echo.Write(small); err != nil {
					return err
				}
				_, err := io.ReadFull(echo, small)
				return err
			})
			return 1e6 / times, err
		})})
	return err
}
