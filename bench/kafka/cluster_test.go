//go:build e2e

package kafka

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// jars is where `make test-kafka` and the bench keep what Maven fetched.
func jars(t *testing.T) string {
	dir, err := filepath.Abs("../../build/peers")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := Broker.Install(ctx, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestCluster: a cluster answers when Start returns, ends with Close, and says how a broker that died ended.
func TestCluster(t *testing.T) {
	dir := jars(t)
	c, err := Start(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Node(0).Ended(); err != nil || !strings.HasPrefix(c.Addr(), "127.0.0.1:") {
		t.Errorf("%s: %v", c.Addr(), err)
	}
	pid := c.Node(0).PID()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("broker %d is there after Close: %v", pid, err)
	}
	// ended in the middle of the start: nothing stays
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, Options{Dir: dir}); err == nil {
		t.Error("a start that was cut short succeeded")
	}
	if _, err := Start(t.Context(), Options{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "--install-peers") {
		t.Errorf("without jars: %v", err)
	}
}
