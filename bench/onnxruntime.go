package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
	"google.golang.org/protobuf/proto"

	pb "github.com/lapwing-stream/lapwing/model/onnxpb"
)

// ONNX Runtime through its C API: the library is that of the Python package, opened at run time. Header and binding come
// from a Go module; the library answers any older version of its API.

var ortOnce sync.Mutex

// openONNXRuntime loads the library, once for the process.
func (r *run) openONNXRuntime() error {
	ortOnce.Lock()
	defer ortOnce.Unlock()
	if r.Peers == "" {
		return errors.New("not installed: lapwing bench --install-peers")
	}
	if !ort.IsInitialized() {
		libraries, err := filepath.Glob(filepath.Join(r.Peers, "py", "lib", "python3*", "site-packages", "onnxruntime", "capi", "libonnxruntime.*"))
		if err != nil {
			return err
		}
		libraries = slices.DeleteFunc(libraries, func(name string) bool { return strings.Contains(name, "_providers_") })
		if len(libraries) == 0 {
			return errors.New("not installed: lapwing bench --install-peers")
		}
		ort.SetSharedLibraryPath(libraries[0])
		if err := ort.InitializeEnvironment(); err != nil {
			return fmt.Errorf("ONNX Runtime cannot be opened: %w", err)
		}
	}
	r.Versions["onnxruntime"] = ort.GetVersion()
	return nil
}

// ortSession is a graph with one thread of its own, every optimisation, and one operator after the other.
type ortSession struct {
	session *ort.DynamicAdvancedSession
	name    string // of the output
}

// newORTSession loads a graph with one input and one output.
func newORTSession(data []byte, input, output string) (*ortSession, error) {
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	if err := errors.Join(o.SetIntraOpNumThreads(1), o.SetInterOpNumThreads(1), o.SetExecutionMode(ort.ExecutionModeSequential),
		o.SetGraphOptimizationLevel(ort.GraphOptimizationLevelEnableAll)); err != nil {
		return nil, err
	}
	s, err := ort.NewDynamicAdvancedSessionWithONNXData(data, []string{input}, []string{output}, o)
	if err != nil {
		return nil, err
	}
	return &ortSession{s, output}, nil
}

func (s *ortSession) close() { s.session.Destroy() }

// ortCall is a batch whose input and output are bound beforehand. Several may run at a time on one session.
type ortCall struct {
	s       *ortSession
	binding *ort.IoBinding
	in, out *ort.Tensor[float32]
}

func (s *ortSession) bind(input string, rows []float32, width int, shape ...int64) (*ortCall, error) {
	n := int64(len(rows) / width)
	in, err := ort.NewTensor(ort.NewShape(n, int64(width)), rows)
	if err != nil {
		return nil, err
	}
	c := &ortCall{s: s, in: in}
	if c.out, err = ort.NewEmptyTensor[float32](ort.NewShape(append([]int64{n}, shape...)...)); err != nil {
		c.close()
		return nil, err
	}
	if c.binding, err = s.session.CreateIoBinding(); err != nil {
		c.close()
		return nil, err
	}
	if err := errors.Join(c.binding.BindInput(input, in), c.binding.BindOutput(s.name, c.out)); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *ortCall) run() error { return c.s.session.RunWithBinding(c.binding) }

func (c *ortCall) scores() []float32 { return c.out.GetData() }

func (c *ortCall) close() {
	if c.binding != nil {
		c.binding.Destroy()
	}
	if c.out != nil {
		c.out.Destroy()
	}
	c.in.Destroy()
}

// withoutScaler cuts off what comes before the first layer of a plain network's graph: missing values, clipping and scaling,
// which an ONNX file elsewhere may not have. Where the scaler is the identity the scores stay the same.
func withoutScaler(data []byte) ([]byte, error) {
	var m pb.ModelProto
	if err := proto.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	g := m.Graph
	first := slices.IndexFunc(g.Node, func(n *pb.NodeProto) bool { return n.GetOpType() == "Gemm" })
	if first < 0 {
		return nil, errors.New("the graph has no layer")
	}
	scaled, input := g.Node[first].Input[0], g.Input[0].GetName()
	g.Node = g.Node[first:]
	used := map[string]bool{}
	for _, n := range g.Node {
		for i, in := range n.Input {
			if in == scaled {
				n.Input[i] = input
			}
			used[n.Input[i]] = true
		}
	}
	g.Initializer = slices.DeleteFunc(g.Initializer, func(t *pb.TensorProto) bool { return !used[t.GetName()] })
	return proto.Marshal(&m)
}

// peerFile is a file of the peers' folder, or why it is not there.
func (r *run) peerFile(parts ...string) (string, error) {
	if r.Peers == "" {
		return "", errors.New("not installed: lapwing bench --install-peers")
	}
	name := filepath.Join(append([]string{r.Peers}, parts...)...)
	if _, err := os.Stat(name); err != nil {
		return "", errors.New("not installed: lapwing bench --install-peers")
	}
	return name, nil
}
