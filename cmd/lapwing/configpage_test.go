package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

//go:generate go test -run TestConfigurationPage -update .

// TestConfigurationPage holds docs/configuration.md to what the code declares; -update writes it.
func TestConfigurationPage(t *testing.T) {
	path := filepath.Join(home, "..", "..", "docs", "configuration.md")
	page := configurationPage()
	if *update {
		writeFile(t, path, page)
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(have), page); d != "" {
		t.Errorf("docs/configuration.md is stale; go generate ./cmd/lapwing writes it anew:\n%s", d)
	}
}

func configurationPage() string {
	var b bytes.Buffer
	b.WriteString(`# Configuration

<!-- Generated from cmd/lapwing/settings.go by go generate ./cmd/lapwing; a test fails when this page is stale. -->

Settings come from four places. A flag wins over the environment, the environment over the file, the file over the default:

1. a flag of the command, such as ` + "`--max-memory 2GiB`" + `; a command's flags mean its own section, so ` + "`lapwing serve --engine cpu`" + ` is ` + "`score.engine`" + `;
2. a variable, such as ` + "`LAPWING_TRAIN_MAX_MEMORY=2GiB`" + `;
3. a YAML file: ` + "`--config FILE`" + `, or ` + "`./lapwing.yaml`" + ` where it exists;
4. the default.

` + "`lapwing config`" + ` shows what holds and where each value came from, with secrets hidden; ` + "`lapwing config serve --max-batch 512`" + ` shows what
those flags would do. Whatever means nothing is refused with its line and the nearest setting, all faults at once: an unknown or doubled key, a tab,
a value out of bounds, a variable with the prefix ` + "`LAPWING_`" + ` that is no setting.

A secret property of ` + "`kafka`" + `, such as ` + "`sasl.password`" + `, may stand in a file of its own, named with ` + "`.file`" + ` behind it: ` + "`sasl.password.file: /run/secrets/kafka`" + `, or
` + "`LAPWING_KAFKA_SASL_PASSWORD_FILE`" + `. ` + "`--property`" + ` takes the names of such files, and refuses secrets ([security.md](security.md#secrets)).

Sizes are written ` + "`512MiB`, `1GiB`, `2GB`" + ` or in bytes; shares ` + "`5%` or `0.05`" + `; durations ` + "`250ms`, `10s`, `5m`, `24h` or `7d`" + `. Lists are YAML lists, and parted by
commas in variables and flags.

## A whole file

` + "```yaml" + `
kafka: {bootstrap.servers: localhost:9092}
models_topic: lapwing.models
http: 127.0.0.1:8080
delivery: exactly_once
train: {max_memory: 1GiB, max_rejected: 5%, engine: auto}
score: {engine: auto, max_batch: 4096, queue: 65536, max_in_flight: 4}
streams:
  - model: cars
    input: {topics: [cars], format: json, key: car, time: time}
    output: cars.scores
    alerts: {topic: cars.alerts, raise_after: 3}
    dlq: cars.dlq
` + "```" + `

## In an editor

[lapwing.schema.json](lapwing.schema.json) is the JSON Schema of the file, made from the declarations that the program reads. An editor with a YAML language server
completes keys, shows what each does, and underlines what means nothing, once the file begins with a line that says where the schema is:

` + "```sh" + `
lapwing config schema > lapwing.schema.json
(echo '# yaml-language-server: $schema=lapwing.schema.json'; cat examples/lapwing.yaml) > lapwing.yaml
lapwing config > /dev/null
` + "```" + `

It underlines nothing that the program takes (but for a key with nothing behind it). Rules over several settings, and names of librdkafka's properties, only the program checks.

## In the shell

The Tab key completes commands and flags, and names of models, versions, aliases and topics as they stand in Kafka, once the shell has read the script that
` + "`lapwing completion`" + ` prints: ` + "`source <(lapwing completion bash)`" + ` in ` + "`~/.bashrc`" + ` (the package bash-completion must be there), ` + "`source <(lapwing completion zsh)`" + ` in ` + "`~/.zshrc`" + `
after ` + "`compinit`" + `, ` + "`lapwing completion fish > ~/.config/fish/completions/lapwing.fish`" + `, or ` + "`lapwing completion powershell | Out-String | Invoke-Expression`" + ` in ` + "`$PROFILE`" + `. A broker
that does not answer within 1.5 seconds offers nothing, without a word.

## Kafka

The map ` + "`kafka`" + ` takes any [librdkafka property](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md) by its own name. ` + "`_` stands for `.`" + ` in variables:
` + "`LAPWING_KAFKA_SASL_PASSWORD` is `sasl.password`" + `. ` + "`--brokers` is `bootstrap.servers`" + `, and ` + "`--property KEY=VALUE` (`-X`)" + ` any other. Properties that
decide what Lapwing promises (` + "`enable.auto.commit`, `isolation.level`, `group.id`, `transactional.id`" + ` and the like) are refused with the reason.
Passwords, keys, secrets, tokens and the names in URLs are never shown.
`)
	section := ""
	for _, s := range declared() {
		switch {
		case s.list:
			fmt.Fprintf(&b, "\n## `%s`\n\n%s.\n", s.path, sentence(s.doc))
			writeTable(&b, streamDeclared(), false)
		case s.group:
			section = s.path
			fmt.Fprintf(&b, "\n## `%s`\n\n%s.\n", s.path, sentence(s.doc))
			var in []setting
			for _, d := range declared() {
				if d.section == section {
					in = append(in, d)
				}
			}
			writeTable(&b, in, true)
		case section == "" && s.path == "kafka":
			b.WriteString("\n## At the top\n")
			var in []setting
			for _, d := range declared() {
				if d.section == "" && !d.group && !d.list {
					in = append(in, d)
				}
			}
			writeTable(&b, in, true)
		}
	}
	b.WriteString(`
## Not there yet

These keys are part of the file's contract, but nothing reads them in this version. They are refused with the reason, so that
nobody believes in an effect they do not have: ` + "`grpc`, `admin` and `score.max_wait`" + `.
`)
	return b.String()
}

func sentence(doc string) string { return strings.ToUpper(doc[:1]) + doc[1:] }

func writeTable(b *bytes.Buffer, all []setting, env bool) {
	if env {
		b.WriteString("\n| setting | default | written as | what it does | variable, flag |\n| --- | --- | --- | --- | --- |\n")
	} else {
		b.WriteString("\n| setting | default | written as | what it does | flag of `serve` |\n| --- | --- | --- | --- | --- |\n")
	}
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + s + "`"
	}
	for _, s := range all {
		if s.group {
			continue
		}
		written := s.unit
		if len(s.oneof) > 0 {
			written = s.allowed()
		} else if written == "" {
			written = s.allowed()
		}
		flag := code("--" + s.flag)
		if s.path == "kafka" {
			flag = "`LAPWING_KAFKA_…`, `--brokers`, `--property`"
		} else if env {
			flag = code(s.env) + ", " + flag
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", s.path, code(s.def), cell(written), cell(s.doc), flag)
	}
}
