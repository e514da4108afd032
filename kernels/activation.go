package kernels

import (
	"fmt"
	"strings"
)

// Activation is the function after a Gemm.
type Activation uint8

const (
	Linear    Activation = iota
	ReLU                 // max(x, 0)
	Tanh                 //
	Sigmoid              // 1/(1 + e⁻ˣ)
	LeakyReLU            // x, and LeakySlope·x below 0
	ELU                  // x, and eˣ − 1 below 0
	GELU                 // x·½·(1 + tanh(GELUScale·(x + GELUCubic·x³)))
)

// The constants are those that other frameworks take where none is asked for. They are no fields of Gemm: a slope
// that every kernel reads from memory would cost each layer, and no detector here has needed another.
const (
	LeakySlope = 0.01
	GELUScale  = 0.7978845608028654 // √(2/π)
	GELUCubic  = 0.044715           // Hendrycks and Gimpel's tanh form: neither Gorgonia nor opset 17 of ONNX has erf's
)

// names are what settings and errors call each of a vocabulary, by its value.
var (
	activationNames = [...]string{Linear: "linear", ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid", LeakyReLU: "leaky_relu", ELU: "elu", GELU: "gelu"}
	lossNames       = [...]string{MSE: "mse", Huber: "huber"}
	optimizerNames  = [...]string{Adam: "adam", SGD: "sgd"}
)

// Activations are all of them.
func Activations() []Activation { return every[Activation](len(activationNames)) }

// Losses are all of them.
func Losses() []Loss { return every[Loss](len(lossNames)) }

// Optimizers are all of them.
func Optimizers() []Optimizer { return every[Optimizer](len(optimizerNames)) }

func every[T ~uint8](n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = T(i)
	}
	return all
}

func (a Activation) String() string { return name("activation", activationNames[:], uint8(a)) }
func (l Loss) String() string       { return name("loss", lossNames[:], uint8(l)) }
func (o Optimizer) String() string  { return name("optimizer", optimizerNames[:], uint8(o)) }

func name(of string, names []string, v uint8) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%s %d", of, v)
}

// ParseActivation reads a name that String gives.
func ParseActivation(text string) (Activation, error) {
	return parse[Activation]("activation", activationNames[:], text)
}

// ParseLoss reads a name that String gives.
func ParseLoss(text string) (Loss, error) { return parse[Loss]("loss", lossNames[:], text) }

// ParseOptimizer reads a name that String gives.
func ParseOptimizer(text string) (Optimizer, error) {
	return parse[Optimizer]("optimizer", optimizerNames[:], text)
}

func parse[T ~uint8](of string, names []string, text string) (T, error) {
	for i, n := range names {
		if n == text {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("%s %q is not known: %s", of, text, strings.Join(names, ", "))
}
