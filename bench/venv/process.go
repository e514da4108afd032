package venv

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// Process is a program that answers each line of JSON on its standard input with one on its standard output. After a fault
// it is ended, and a new one must be started. It is for one goroutine.
type Process struct {
	command *exec.Cmd
	to      io.WriteCloser
	from    chan []byte
	said    *lastWords
	ended   bool
}

// Start starts a program.
func Start(ctx context.Context, program string, args ...string) (*Process, error) {
	p := &Process{command: exec.CommandContext(ctx, program, args...), said: &lastWords{}, from: make(chan []byte, 1)}
	p.command.Stderr = p.said
	var err error
	if p.to, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func(to chan<- []byte) { // ends with the process's output
		defer close(to)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			to <- append([]byte(nil), lines.Bytes()...)
		}
	}(p.from)
	return p, nil
}

// Ended tells that the process is gone, by a fault or by Close.
func (p *Process) Ended() bool { return p == nil || p.ended }

// Ask sends a request and reads its answer, a JSON object. An answer with an "error" is one, and the process lives on.
func (p *Process) Ask(ctx context.Context, limit time.Duration, request, answer any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := p.to.Write(append(line, '\n')); err != nil {
		p.Close()
		return fmt.Errorf("the Python process ended: %s", p.said.line())
	}
	return p.Answer(ctx, limit, answer)
}

// Answer waits for the next line, which may come unasked at the start. The process is ended where none comes.
func (p *Process) Answer(ctx context.Context, limit time.Duration, answer any) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case line, ok := <-p.from:
		if !ok {
			p.Close()
			return fmt.Errorf("the Python process ended: %s", p.said.line())
		}
		var failed struct{ Error string }
		err := json.Unmarshal(line, &failed)
		if err == nil && failed.Error == "" {
			err = json.Unmarshal(line, answer)
		}
		if err != nil {
			p.Close()
			return fmt.Errorf("said what is no answer: %.100s", line)
		}
		if failed.Error != "" {
			return errors.New(failed.Error)
		}
		return nil
	case <-timer.C:
		p.Close()
		return fmt.Errorf("no answer within %v", limit)
	case <-ctx.Done():
		p.Close()
		return context.Cause(ctx)
	}
}

// Close ends the process. What it was doing is lost.
func (p *Process) Close() {
	if p.Ended() {
		return
	}
	p.ended = true
	p.to.Close()
	p.command.Cancel()
	for range p.from { // until its output ends
	}
	p.command.Wait()
}
