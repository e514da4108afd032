package bench

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	apache "github.com/lapwing-stream/lapwing/bench/kafka"
	"github.com/lapwing-stream/lapwing/bench/venv"
)

//go:embed requirements-torch.txt
var torchRequired []byte

// installable are the peers by the names that InstallPeers takes, each with the folder it has within the private one.
var installable = []struct {
	name, what string
	standard   bool // installed where nothing is named
	install    func(context.Context, Installation) error
}{
	{"python", "onnxruntime, numpy, confluent-kafka and orjson, about 200 MB", true, func(ctx context.Context, i Installation) error {
		return venv.Env{Home: filepath.Join(i.Folder, "py"), Base: i.Python, Log: i.Log}.Install(ctx, "requirements.txt", apache.Requirements, "onnxruntime, numpy, confluent-kafka and orjson, about 200 MB")
	}},
	{"kafka", "Apache Kafka, Kafka Streams with ONNX Runtime, about 190 MB; needs a JDK 17 and Maven", true, func(ctx context.Context, i Installation) error {
		fmt.Fprintf(i.Log, "installing Apache Kafka and Kafka Streams into %s, once: about 190 MB\n", i.Folder)
		return errors.Join(apache.Broker.Install(ctx, i.Folder), apache.Streams.Install(ctx, i.Folder))
	}},
	{"torch", "PyTorch, about 5 GB", false, func(ctx context.Context, i Installation) error {
		return venv.Env{Home: filepath.Join(i.Folder, "torch"), Base: i.Python, Log: i.Log}.Install(ctx, "requirements-torch.txt", torchRequired, "PyTorch, about 5 GB")
	}},
}

// Installation says which peers to put where.
type Installation struct {
	Folder string    // private, that holds all peers; required
	Names  []string  // of Installable; default the standard ones
	Python string    // program that makes the environments; default python3
	Log    io.Writer // what is being done; default none
}

// Installable names the peers with what they are; the standard ones first.
func Installable() (names, about []string) {
	for _, p := range installable {
		names, about = append(names, p.name), append(about, p.name+": "+p.what)
	}
	return names, about
}

// StandardPeers are those that are installed where nothing is named.
func StandardPeers() (names []string) {
	for _, p := range installable {
		if p.standard {
			names = append(names, p.name)
		}
	}
	return names
}

// Validate reports every fault at once.
func (i Installation) Validate() error {
	known, _ := Installable()
	var faults []error
	for _, n := range i.Names {
		if !slices.Contains(known, n) {
			faults = append(faults, fmt.Errorf("there is no peer %q to install; there are %s", n, strings.Join(known, ", ")))
		}
	}
	if i.Folder == "" {
		faults = append(faults, errors.New("no folder is named for the peers"))
	}
	return errors.Join(faults...)
}

// InstallPeers puts peers into the private folder by package name. One that fails does not keep the others from coming.
func InstallPeers(ctx context.Context, i Installation) error {
	if err := i.Validate(); err != nil {
		return err
	}
	if len(i.Names) == 0 {
		i.Names = StandardPeers()
	}
	if i.Log == nil {
		i.Log = io.Discard
	}
	if err := os.MkdirAll(i.Folder, 0o755); err != nil {
		return err
	}
	var faults []error
	for _, p := range installable {
		if !slices.Contains(i.Names, p.name) {
			continue
		}
		if err := p.install(ctx, i); err != nil {
			faults = append(faults, fmt.Errorf("installing %s: %w", p.name, err))
			continue
		}
		fmt.Fprintf(i.Log, "%s is ready\n", p.name)
	}
	return errors.Join(faults...)
}
