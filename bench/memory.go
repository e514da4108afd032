package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
)

const swaps = 20

// memorySuite runs `lapwing serve` as its own process over Soak records while 20 different models of about 5 MB swap,
// and compares the highest resident anonymous memory of the second half of the records with that of the first.
// Anonymous memory counts librdkafka's and the Go heap's alike, and no mapped files.
func memorySuite(ctx context.Context, r *run) error {
	if r.Binary == "" {
		r.note("memory: left out, since it needs the lapwing binary as its own process")
		return nil
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		r.note("memory: left out, since this system has no /proc")
		return nil
	}
	c, err := embedded(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	values, spec, err := fleetValues(20_000)
	if err != nil {
		return err
	}
	if err := c.topic(ctx, "cars"); err != nil {
		return err
	}
	reg := c.registry()
	publish := func(n int) error {
		data, err := bulky(spec, uint64(n))
		if err == nil {
			_, err = reg.Publish(ctx, registry.Publication{Name: "cars", Data: data, Alias: registry.Live, By: "bench"})
		}
		return err
	}
	if err := publish(0); err != nil {
		return err
	}
	var stderr bytes.Buffer
	serve := exec.Command(r.Binary, "serve", "--brokers", c.addr, "--topic", "cars", "--model", "cars", "--alerts", server.None, "--http", "127.0.0.1:0",
		"--delivery", server.AtLeastOnce) // the count of what is done goes by offsets, of which transactions take some
	serve.Stderr, serve.Dir = &stderr, os.TempDir()
	if err := serve.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	halves, err := c.soak(ctx, r, serve.Process.Pid, values, publish, ended)
	if e := serve.Process.Signal(syscall.SIGTERM); e == nil {
		select {
		case e = <-ended:
		case <-time.After(time.Minute):
			e = errors.Join(errors.New("serve did not end within a minute of SIGTERM"), serve.Process.Kill())
		}
		if err == nil {
			err = e
		}
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	for i, name := range []string{"first half", "second half"} {
		v := halves[i] / (1 << 20)
		r.Rows = append(r.Rows, Row{Suite: "memory", Case: fmt.Sprintf("%d records, at least once, %d swaps", r.Soak, swaps), Subject: "lapwing serve", Role: Ours, Metric: name, Lower: true, Value: v, Unit: "MiB", Samples: []float64{v}, Spread: [2]float64{v, v}})
	}
	r.target("resident memory, second half of the records over the first", 1.05, halves[1]/halves[0], "×", true)
	return nil
}

// soak feeds the records in slices, so that the swaps are spread evenly, and samples memory meanwhile.
func (c *cluster) soak(ctx context.Context, r *run, pid int, values [][]byte, publish func(int) error, ended <-chan error) (halves [2]float64, err error) {
	slice := make([][]byte, r.Soak/swaps)
	sent := 0
	for n := range swaps {
		for i := range slice {
			slice[i] = values[(n*len(slice)+i)%len(values)]
		}
		if err := c.fill(ctx, "cars", slice, len(slice)); err != nil {
			return halves, err
		}
		sent += len(slice)
		if n > 0 { // version 1 is there already
			if err := publish(n); err != nil {
				return halves, err
			}
		}
		fmt.Fprintf(r.Log, "memory: %d of %d records\n", sent, r.Soak)
		for {
			done, err := c.count(ctx, "cars.scores")
			if err != nil && !strings.Contains(err.Error(), "cars.scores") { // not made yet
				return halves, err
			}
			kib, err := anonymous(pid)
			if err != nil {
				return halves, err
			}
			half := 0
			if done > int64(r.Soak)/2 {
				half = 1
			}
			halves[half] = max(halves[half], kib*1024)
			// the next slice comes while the last is still being scored: the swap happens under load
			if done >= int64(sent-len(slice)/2) && n < swaps-1 || done >= int64(sent) {
				break
			}
			select {
			case err := <-ended:
				return halves, fmt.Errorf("serve ended: %v", err)
			case <-ctx.Done():
				return halves, ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return halves, nil
}

// anonymous is the resident anonymous memory of a process, KiB.
func anonymous(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, errors.New("/proc says nothing of RssAnon")
}
