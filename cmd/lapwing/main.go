// Command lapwing learns what normal looks like from a Kafka topic's history and scores every new event against it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// A file that reaches the limit of ulimit -f is an error of that file, not the end of the process.
	signal.Ignore(syscall.SIGXFSZ)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for a clean end; with the handler gone, a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	code := exitCode(run(ctx, os.Args[1:], process()))
	stop()
	os.Exit(code)
}

// process is the world of the real process.
func process() world {
	return world{in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}
}
