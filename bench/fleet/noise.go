package fleet

import "math/rand/v2"

// mul rounds a product. The language lets a compiler fuse x*y + z into one rounding (on arm64 it does, on
// amd64 it does not) unless the product is converted explicitly; without this the same seed would give
// other bytes on another machine. For the same reason nothing here calls math.Exp, Log or Sin, whose last
// bit differs between machines; Sqrt is exact everywhere.
func mul(a, b float64) float64 { return float64(a * b) }

// toward moves x a share k of the way to a target: one Euler step of a first-order lag.
func toward(x, target, k float64) float64 { return x + mul(k, target-x) }

func clamp(x, lo, hi float64) float64 { return min(max(x, lo), hi) }

// stream is a source of random numbers. Each car has several, so that a fault in one draws nothing from
// what the others, or the car's own noise, are made of: outside episodes a record is the same, byte for
// byte, as in the fleet without faults.
type stream struct{ pcg rand.PCG }

// Purposes of a stream, mixed into the second word of its seed.
const (
	streamBuild uint64 = iota + 1
	streamDrive
	streamSensor
	streamFault
	streamPlan
)

func newStream(seed uint64, purpose uint64, car int) stream {
	return stream{pcg: *rand.NewPCG(seed, purpose<<32|uint64(car))}
}

// uniform is in [lo, hi).
func (s *stream) uniform(lo, hi float64) float64 {
	return lo + mul(hi-lo, float64(s.pcg.Uint64()>>11)*(1.0/(1<<53)))
}

// normal has mean 0 and deviation 1: the sum of four uniform numbers of 16 bits, from one draw. Its tails
// end at 3.46, as a sensor's noise does; and unlike the ziggurat it needs no Exp.
func (s *stream) normal() float64 {
	u := s.pcg.Uint64()
	sum := int64(u&0xffff) + int64(u>>16&0xffff) + int64(u>>32&0xffff) + int64(u>>48) - 2*0xffff
	const deviation = 37836.82 // sqrt(4·(2^32 − 1)/12)
	return float64(sum) / deviation
}

// whole is in 0..n-1. The modulo's bias is below n/2^64.
func (s *stream) whole(n int) int { return int(s.pcg.Uint64() % uint64(n)) }

// chance is true with probability p.
func (s *stream) chance(p float64) bool { return s.uniform(0, 1) < p }
