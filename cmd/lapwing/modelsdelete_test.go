package main

import (
	"strings"
	"testing"
)

func TestModelsDelete(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 300 --topic cars")
	for range 3 {
		b.ok("train --topic cars --model cars --layers 4 --epochs 1")
	}
	_, stderr := b.fails("models delete cars/3 cars/1 --yes")
	if want := "lapwing: model cars/3 is what cars@live means; it cannot be deleted\n  next: move the alias first: lapwing models rollback cars@live (to version 2)\n"; stderr != want {
		t.Errorf("%s\nwant %s", stderr, want)
	}
	b.has(b.ok("models list"), "\n     1 ")

	// Asked, it deletes for a yes alone.
	for _, c := range [][2]string{{"y\r", "nothing was deleted"}, {"\x03", "interrupted: nothing was deleted"}, {"\x04", "nothing was deleted"}, {"yes\r", "is deleted\r\n"}} {
		answer, want := c[0], c[1]
		s := openScreen(t, 100, 24, []string{"LAPWING_TEST_MAIN=1"}, "models", "delete", "cars/1", "--brokers", b.broker)
		var seen strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(seen.String(), "Type yes: ") {
			n, err := s.pty.Read(buf)
			seen.Write(buf[:n])
			if err != nil {
				t.Fatalf("%v\n%s", err, &seen)
			}
		}
		b.has(seen.String(), "cars   1  ", " by ")
		if _, err := s.pty.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := s.pty.Read(buf)
			seen.Write(buf[:n])
			if err != nil {
				break
			}
		}
		if !strings.Contains(seen.String(), want) {
			t.Errorf("answered %q:\n%s", answer, &seen)
		}
		if out := b.ok("models list --json"); strings.Contains(out, `"version":1,`) == (answer == "yes\r") {
			t.Errorf("answered %q: %s", answer, out)
		}
	}
	if got := b.object("models delete cars/2 cars/2 --yes --json"); len(got["deleted"].([]any)) != 1 || got["topic"] != "lapwing.models" {
		t.Errorf("%v", got)
	}
	_, stderr = b.fails("models rollback cars")
	b.has(stderr, "nothing to roll back to")
	b.has(b.ok("train --topic cars --model cars --layers 4 --epochs 1"), "cars/4")
}
