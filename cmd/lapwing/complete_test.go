package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// completes gives what the Tab key offers after a command line, without descriptions, and cobra's directive.
func (b *bed) completes(words ...string) string {
	b.t.Helper()
	out, _, code := runIn(b.t, []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, append([]string{"__complete"}, words...)...)
	if code != 0 {
		b.t.Fatalf("%q: exit %d", words, code)
	}
	var list []string
	for line := range strings.Lines(out) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		list = append(list, word)
	}
	return strings.Join(list, " ")
}

func TestCompletion(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 300 --topic cars")
	b.ok("train --topic cars --model cars --layers 4 --epochs 1")
	b.ok("train --topic cars --model cars --layers 4 --epochs 1 --alias canary")
	b.ok("train --topic cars --model pumps --layers 4 --epochs 1")
	// 4: no files; 36: and in this order; 0: files too; 2, 6: no space after it.
	for _, c := range [][]string{
		{"models show c", "cars cars@canary cars@live cars/2 cars/1 :36"},
		{"models show cars@", "cars@canary cars@live :36"},
		{"models show cars x", ":36"},
		{"models delete c", "cars/2 cars/1 :36"},
		{"models delete cars/2 ", "cars/1 pumps/1 :36"},
		{"models diff cars/1 p", "pumps pumps@live pumps/1 :36"},
		{"models rollback ", "cars cars@canary cars@live pumps pumps@live :36"},
		{"models move cars@live ", "2 1 :36"},
		{"models import ", ":0"},
		{"models import x --model p", "pumps :36"},
		{"score rows.csv --model cars/", "cars/2 cars/1 :36"},
		{"score rows.csv --contributions ", "anomalies all :36"},
		{"train --topic ", "cars cars.labels lapwing.models :36"},
		{"train --topic=car", "cars cars.labels :36"},
		{"serve --topic cars,cars.", "cars,cars.labels :36"},
		{"serve --model cars --alias c", "canary :36"},
		{"serve --start ", "earliest latest after-training :36"},
		{"serve --engine c", "cpu cuda :36"},
		{"tail ", "scores alerts cars cars.labels lapwing.models :36"},
		{"config --config ", ":0"},
		{"train -X sasl.us", "sasl.username= :38"},
		{"completion ", "bash zsh fish powershell :4"},
		{"help mod", "models :4"},
		{"help models ex", "export :4"},
		{"train --seed ", ":4"},
		{"models sho", "show :4"},
	} {
		words := strings.Split(c[0], " ")
		if got := b.completes(words...); got != c[1] {
			t.Errorf("lapwing %s: %s, want %s", c[0], got, c[1])
		}
	}
}

// Without a broker, with one that never answers, and with a configuration that is wrong, nothing is offered and nothing is
// said; waiting without end would end the test.
func TestCompletionIsSilentWithoutABroker(t *testing.T) {
	t.Chdir(t.TempDir())
	frozen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	for name, environ := range map[string]string{
		"nobody listens": "LAPWING_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1", "frozen": "LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + frozen.Addr().String(),
		"wrong setting": "LAPWING_SCOER_QUEUE=1",
	} {
		out, stderr, code := runIn(t, []string{environ}, "__complete", "models", "show", "c")
		if code != 0 || out != ":36\n" || stderr != "Completion ended with directive: ShellCompDirectiveNoFileComp, ShellCompDirectiveKeepOrder\n" {
			t.Errorf("%s: exit %d\n%s%s", name, code, out, stderr)
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	for shell, part := range map[string]string{"zsh": "#compdef lapwing", "fish": "complete -c lapwing", "powershell": "Register-ArgumentCompleter", "bash": "complete -o default"} {
		out, stderr, code := runIn(t, nil, "completion", shell)
		if code != 0 || !strings.Contains(out, part) {
			t.Errorf("%s: exit %d, %s", shell, code, stderr)
		}
	}
	if _, stderr, code := runIn(t, nil, "completion", "bsh"); code != exitUsage || stderr != "lapwing: there is no completion for \"bsh\"\n  next: use one of bash, zsh, fish, powershell\n" {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// bash itself runs the script; the words that the package bash-completion would split are given.
func TestCompletionInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("the tests of the documents need bash too:", err)
	}
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 300 --topic cars")
	b.ok("train --topic cars --model cars --layers 4 --epochs 1")
	if err := os.Symlink(os.Args[0], "lapwing"); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`PATH=$PWD:$PATH
_init_completion() { [ "$1 $2" = "-n =:@" ] || exit 3; words=(%s); cword=$((${#words[@]}-1)); cur=${words[cword]}; prev=${words[cword-1]}; }
compopt() { :; }
source <(lapwing completion bash)
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:@'
COMP_TYPE=9
__start_lapwing
printf '%%s\n' "${COMPREPLY[@]}"
`, "lapwing models show cars@l")
	cmd := exec.CommandContext(t.Context(), bash, "-c", script)
	cmd.Env = append(os.Environ(), "LAPWING_TEST_MAIN=1", "LAPWING_KAFKA_BOOTSTRAP_SERVERS="+b.broker)
	out, err := cmd.CombinedOutput()
	// bash has cars@ on the line already, as a word of its own.
	if err != nil || string(out) != "live\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
