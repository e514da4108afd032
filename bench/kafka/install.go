// Package kafka runs a real Apache Kafka on loopback, and fetches it and its peers of the bench by package name.
package kafka

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// What Maven fetches and builds, each into a folder of its own: the jars of two programs are not to be mixed.
//
//go:embed pom.xml server.properties streams connect
var sources embed.FS

// PythonPeer is the program that scores with confluent-kafka and onnxruntime.
//
//go:embed peer.py
var PythonPeer []byte

// Requirements are the Python packages of PythonPeer.
//
//go:embed requirements.txt
var Requirements []byte

// Version of Apache Kafka and of Kafka Streams, as in the two pom.xml.
const Version = "4.4.0"

// Part is something that Install puts into the private folder.
type Part struct {
	Name  string // folder within the private folder
	needs []string
	goals []string
	from  string // folder of sources
}

var (
	// Broker is Apache Kafka with its command line tools.
	Broker = Part{"broker", []string{"java", "mvn"}, nil, "."}
	// Streams is the scorer of Kafka Streams and ONNX Runtime. Its source is compiled here, so it needs a JDK.
	Streams = Part{"streams", []string{"java", "javac", "mvn"}, []string{"package"}, "streams"}
	// Connect is Kafka Connect with its connectors to and from files, and MirrorMaker 2.
	Connect = Part{"connect", []string{"java", "mvn"}, nil, "connect"}
)

// Missing says why the part cannot be used from dir; nil if it can.
func (p Part) Missing(dir string) error {
	if _, err := exec.LookPath("java"); err != nil {
		return errors.New("java is missing: install a Java 17 runtime")
	}
	want, err := p.digest()
	if err != nil {
		return err
	}
	if got, err := os.ReadFile(p.ready(dir)); err != nil || string(got) != want {
		return fmt.Errorf("%s is not installed: run lapwing bench --install-peers", p.Name)
	}
	return nil
}

// Jars is the class path of the part.
func (p Part) Jars(dir string) string { return filepath.Join(dir, p.Name, "*") }

func (p Part) ready(dir string) string { return filepath.Join(dir, p.Name, ".ready") }

// digest changes when what is to be installed does.
func (p Part) digest() (string, error) {
	h := sha256.New()
	err := fs.WalkDir(sources, p.from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || p.from == "." && path != "pom.xml" {
			return err
		}
		data, err := sources.ReadFile(path)
		h.Write(data)
		return err
	})
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// Install fetches the part into dir by Maven, and builds what is to be built. It does nothing where that is done.
func (p Part) Install(ctx context.Context, dir string) error {
	for _, tool := range p.needs {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s needs %s, which is missing", p.Name, strings.Join(p.needs, ", "))
		}
	}
	if p.Missing(dir) == nil {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	source, err := os.MkdirTemp("", "lapwing-"+p.Name)
	if err != nil {
		return err
	}
	defer os.RemoveAll(source)
	if err := os.CopyFS(source, sources); err != nil {
		return err
	}
	jars := filepath.Join(dir, p.Name)
	if err := os.RemoveAll(jars); err != nil {
		return err
	}
	if err := os.MkdirAll(jars, 0o755); err != nil {
		return err
	}
	args := append([]string{"-q", "-B", "-f", filepath.Join(source, p.from, "pom.xml")}, p.goals...)
	args = append(args, "dependency:copy-dependencies", "-DoutputDirectory="+jars, "-DincludeScope=runtime", "-Djars="+jars)
	if out, err := exec.CommandContext(ctx, "mvn", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mvn could not fetch %s: %w\n%s", p.Name, err, out)
	}
	want, err := p.digest()
	if err != nil {
		return err
	}
	return os.WriteFile(p.ready(dir), []byte(want), 0o644)
}
